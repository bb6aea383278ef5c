// Stochastic depth: drops a residual branch for whole samples.
#pragma once

#include <torch/types.h>

namespace serpentine {

/// Zeroes each sample of x [B, ...] with `probability` and scales the others by 1 / (1 -
/// probability), in training only. Huang et al., arXiv 1603.09382. Throws for a probability outside
/// [0, 1).
torch::Tensor drop_path(const torch::Tensor& x, double probability, bool training);

}  // namespace serpentine
