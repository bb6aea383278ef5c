#include "core/nn/drop_path.h"

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {

namespace {

/// A mask of zeros and 1 / (1 - probability) that broadcasts to x.
torch::Tensor scaled_mask(const char* who, const torch::Tensor& x, double probability,
                          const std::vector<int64_t>& shape) {
  SERPENTINE_CHECK(probability >= 0 && probability < 1, who,
                   "the probability must be in [0, 1), got ", probability);
  return torch::empty(shape, x.options().requires_grad(false)).bernoulli_(1 - probability) /
         (1 - probability);
}

}  // namespace

torch::Tensor drop_path(const torch::Tensor& x, double probability, bool training) {
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[0] = x.size(0);
  if (!training || probability == 0) return x;
  return x * scaled_mask("drop_path", x, probability, shape);
}

torch::Tensor drop_channels(const torch::Tensor& x, double probability, bool training) {
  if (!training || probability == 0) return x;
  check_shape("drop_channels", x, "x", {-1, -1, -1}, "B, T, D");
  return x * scaled_mask("drop_channels", x, probability, {x.size(0), 1, x.size(2)});
}

}  // namespace serpentine
