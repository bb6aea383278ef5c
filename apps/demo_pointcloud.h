// serpentine demo pointcloud: real laser-scanned objects, a trained classifier, a page to turn.
#pragma once

#include <string>
#include <vector>

namespace serpentine {

/// `root`: the folder that holds configs/ and data/. Everything goes to `out`/pointcloud, replaced.
int run_pointcloud_demo(const std::string& root, const std::string& out,
                        const std::vector<std::string>& overrides);

}  // namespace serpentine
