// What a finished run over bags leaves beside its metrics.
#pragma once

#include <string>

#include <torch/types.h>

#include "apps/run.h"

namespace serpentine {

/// Predictions of the validation and the test bags, the split as CLAM writes it, and last, so that
/// it tells a finished run, calibration.json with the temperature fitted on the validation bags.
/// Does nothing for data that are not bags.
void write_bag_results(const RunParts& parts, torch::Device device, const std::string& folder);

/// FOLDER/left_out.csv with every bag that could not be used, and why; returns a sentence that
/// names the number and the file, "" when there is none.
std::string write_left_out(const RunParts& parts, const std::string& folder);

/// The file that is written last.
std::string calibration_file(const std::string& folder);

}  // namespace serpentine
