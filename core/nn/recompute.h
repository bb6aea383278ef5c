// Trading time for memory: a function whose intermediate tensors are computed again in the backward
// pass instead of being kept. Chen et al., arXiv 1604.06174.
#pragma once

#include <functional>
#include <vector>

#include <torch/types.h>

namespace serpentine {

/// Every tensor through which gradients flow must be among the inputs, parameters too. The function
/// must give the same twice (no dropout).
using Recomputable = std::function<torch::Tensor(const std::vector<torch::Tensor>& inputs)>;

/// function(inputs), of which only the inputs are kept. Without gradients just the function.
torch::Tensor recomputed(Recomputable function, const std::vector<torch::Tensor>& inputs);

/// function(rows of each x, shared...) over at most `rows` rows at a time (0: all), joined along
/// the first axis. With several parts each is recomputed in the backward pass.
torch::Tensor recomputed_rows(const Recomputable& function, const std::vector<torch::Tensor>& xs,
                              int64_t rows, const std::vector<torch::Tensor>& shared);
torch::Tensor recomputed_rows(const Recomputable& function, const torch::Tensor& x, int64_t rows,
                              const std::vector<torch::Tensor>& shared);

}  // namespace serpentine
