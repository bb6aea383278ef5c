// A finished run, opened for use.
#pragma once

#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "apps/packages.h"
#include "timeseries/schema.h"

namespace serpentine {

struct TrainedRun {
  std::string folder;
  std::string model_type;
  std::shared_ptr<Model> model;  // with the run's best weights, in evaluation mode
  SeriesSchema schema;
};

/// Throws with what the folder lacks. The run's training data need not be there any more.
TrainedRun open_run(const Packages& packages, const std::string& folder);

/// Makes a folder for results; throws with the path and the cause.
void make_folder(const std::string& folder);

}  // namespace serpentine
