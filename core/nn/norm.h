// RMSNorm and LayerNorm modules with the fused residual addition.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "core/ops/norm.h"

namespace serpentine {

/// Keys: `weight`, for layer norm also `bias`. Initially 1 and 0.
class NormImpl : public torch::nn::Module {
 public:
  NormImpl(int64_t channels, NormKind kind, double eps = 1e-5);

  /// x: [..., D] -> [..., D]
  at::Tensor forward(const at::Tensor& x) { return add(x, {}, false).y; }

  /// As add_norm. residual: [..., D] or undefined.
  AddNormResult add(const at::Tensor& x, const at::Tensor& residual, bool residual_in_fp32);

  at::Tensor weight, bias;  // [D]

 private:
  NormKind kind_;
  double eps_;
};
TORCH_MODULE(Norm);

}  // namespace serpentine
