// serpentine demo pathology: from the bundled slide to a trained model, its heatmap and report.
#pragma once

#include <string>
#include <vector>

namespace serpentine {

/// `root`: the folder that holds configs/ and data/. Everything goes to `out`/pathology, replaced.
int run_pathology_demo(const std::string& root, const std::string& out,
                       const std::vector<std::string>& overrides);

}  // namespace serpentine
