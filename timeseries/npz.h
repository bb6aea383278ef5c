// The layout of the PEMS traffic files: one array [T, N, channels] in an npz archive.
#pragma once

#include <cstdint>
#include <string>

#include <torch/types.h>

namespace serpentine {

/// float64 [T, N]: one channel of the array (or all of a [T, N] array). Throws with the path and
/// the cause.
torch::Tensor read_npz_series(const std::string& path, const std::string& array, int64_t channel);

}  // namespace serpentine
