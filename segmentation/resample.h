// Resampling of volumes along one axis after another, and of labels by slabs of bounded memory.
//
// Positions are those of pixel areas: output o reads the input at (o + 1/2) in/out - 1/2, the edge
// repeats beyond the border (as scikit-image's resize, which nnU-Net uses).
#pragma once

#include <array>
#include <vector>

#include <torch/types.h>

namespace serpentine {

enum class Taps { kNearest = 1, kLinear = 2, kCubic = 4 };  // cubic: Catmull-Rom

/// What each output position reads along one axis.
struct AxisTaps {
  torch::Tensor index;   // int64 [taps, out], within 0..in-1
  torch::Tensor weight;  // float32 [taps, out]
  int64_t in = 0, out = 0;
  /// The inputs that outputs [first, last) read: [begin, end).
  std::pair<int64_t, int64_t> reads(int64_t first, int64_t last) const;
};
AxisTaps axis_taps(int64_t in, int64_t out, Taps taps);

/// x: [..., in at `axis`, ...] -> [..., out, ...]; only outputs [first, last) if last >= 0, reading
/// x as if its first slice were input `offset`.
torch::Tensor resample_axis(const torch::Tensor& x, int64_t axis, const AxisTaps& taps,
                            int64_t first = 0, int64_t last = -1, int64_t offset = 0);

/// data: float32 [C, D, H, W] -> [C, size...]. Cubic; along `nearest_axis` (of low resolution,
/// -1: none) the nearest slice.
torch::Tensor resample_image(const torch::Tensor& data, const std::array<int64_t, 3>& size,
                             int64_t nearest_axis);

/// labels: int32 [D, H, W] -> [size...]: for each label, linear shares; the largest wins. Works one
/// label at a time.
torch::Tensor resample_labels(const torch::Tensor& labels, const std::array<int64_t, 3>& size,
                              int64_t nearest_axis);

/// The size that `size` voxels of `spacing` have with the spacing `target`.
std::array<int64_t, 3> resampled_size(const std::array<int64_t, 3>& size,
                                      const std::array<double, 3>& spacing,
                                      const std::array<double, 3>& target);

/// The axis whose spacing is more than three times the next one's, or -1 (nnU-Net's rule).
int64_t coarse_axis(const std::array<double, 3>& spacing);

}  // namespace serpentine
