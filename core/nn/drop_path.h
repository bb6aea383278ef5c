// Dropout of whole parts: a residual branch for some samples, a channel for all tokens.
#pragma once

#include <torch/types.h>

namespace serpentine {

/// Zeroes each sample of x [B, ...] with `probability` and scales the others by 1 / (1 -
/// probability), in training only. Huang et al., arXiv 1603.09382. Throws for a probability outside
/// [0, 1).
torch::Tensor drop_path(const torch::Tensor& x, double probability, bool training);

/// Zeroes channels of x [B, T, D] with `probability`, each for all tokens of a sample, and scales
/// the others up, in training only.
torch::Tensor drop_channels(const torch::Tensor& x, double probability, bool training);

}  // namespace serpentine
