#include "core/nn/drop_path.h"

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {

torch::Tensor drop_path(const torch::Tensor& x, double probability, bool training) {
  SERPENTINE_CHECK(probability >= 0 && probability < 1, "drop_path",
                   "the probability must be in [0, 1), got ", probability);
  if (!training || probability == 0) return x;
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[0] = x.size(0);
  const auto keep =
      torch::empty(shape, x.options().requires_grad(false)).bernoulli_(1 - probability);
  return x * (keep / (1 - probability));
}

}  // namespace serpentine
