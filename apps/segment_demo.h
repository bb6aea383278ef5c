// The demo of segmentation: train on bundled volumes, label new ones, judge the labels.
#pragma once

#include <string>
#include <vector>

namespace serpentine {

/// `root`: the folder that holds configs/ and data/samples/. Returns what the program returns.
int run_segment_demo(const std::string& root, const std::string& out,
                     const std::vector<std::string>& overrides);

}  // namespace serpentine
