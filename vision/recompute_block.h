// Gradient checkpointing of whole blocks: memory for time.
//
// Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.
#pragma once

#include <functional>
#include <vector>

#include <torch/types.h>

namespace serpentine {

using TensorBlock = std::function<std::vector<torch::Tensor>(const std::vector<torch::Tensor>&)>;

/// block(inputs), whose intermediate tensors are not kept: backward runs it once more, with the
/// same draws of torch's default generators (drop path) and the same autocast state, and adds to
/// the gradients of the parameters that it reads. Without gradients, or if no input requires one,
/// just the block. Inputs may be undefined, outputs not.
std::vector<torch::Tensor> recompute_block(const TensorBlock& block,
                                           const std::vector<torch::Tensor>& inputs);

/// The same for one tensor, if `wanted`.
torch::Tensor recompute_block(bool wanted,
                              const std::function<torch::Tensor(const torch::Tensor&)>& block,
                              const torch::Tensor& x);

}  // namespace serpentine
