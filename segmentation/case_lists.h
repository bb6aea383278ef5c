// Files that list cases: dataset.json and CSV. Used by find_cases().
#pragma once

#include <filesystem>

#include "segmentation/cases.h"

namespace serpentine {

/// ROOT/dataset.json of nnU-Net or the Decathlon. Throws "FILE: which key is wrong, and how".
CaseList cases_of_json(const std::filesystem::path& root);

/// Columns image (image1, image2, ... for channels), label, name, patient or group, split; cells
/// between commas, semicolons or tabs. Throws "FILE:LINE: why".
CaseList cases_of_csv(const std::filesystem::path& file);

/// The labelled images of two folders. What is left out is noted.
void add_pairs(CaseList& list, const std::filesystem::path& images,
               const std::filesystem::path& labels, int64_t channels);

}  // namespace serpentine
