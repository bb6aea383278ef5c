// LocalMamba's directions as scans.
//
// Huang et al., "LocalMamba", arXiv 2403.09338, section 3.2: h rows, v columns, w2, w7 windows of 2
// or 7 tokens a side; _flip: from the end.
#pragma once

#include <string>
#include <vector>

#include <torch/types.h>

namespace serpentine {

/// A `stack` serialization with a branch for each direction, as YAML. Throws for an unknown one.
std::string directions_scan(const std::vector<std::string>& directions);

/// What hunto/LocalMamba's program makes of a branch along columns: it takes the sequence for rows
/// when it puts it back, which is right on square grids only. y: [B, H W, D] in raster order.
torch::Tensor published_columns(const torch::Tensor& y, int64_t height, int64_t width);

}  // namespace serpentine
