#include "core/nn/norm.h"

#include <torch/torch.h>

namespace serpentine {

NormImpl::NormImpl(int64_t channels, NormKind kind, double eps) : kind_(kind), eps_(eps) {
  weight = register_parameter("weight", torch::ones({channels}));
  if (kind == NormKind::kLayer) bias = register_parameter("bias", torch::zeros({channels}));
}

AddNormResult NormImpl::add(const at::Tensor& x, const at::Tensor& residual,
                            bool residual_in_fp32) {
  return add_norm({x, residual, weight, bias, kind_, eps_, residual_in_fp32});
}

}  // namespace serpentine
