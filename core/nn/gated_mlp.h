// The gated feed-forward network beside Mamba layers: fc2(y silu(gate)), [y | gate] = fc1(x).
#pragma once

#include <torch/nn/modules/linear.h>

namespace serpentine {

/// Shazeer, arXiv 2002.05202. Keys `fc1.weight` [2 F, d_model], `fc2.weight` [d_model, F].
class GatedMlpImpl : public torch::nn::Module {
 public:
  /// F is `hidden` rounded up to a multiple of 128, as published.
  GatedMlpImpl(int64_t d_model, int64_t hidden);
  torch::Tensor forward(const torch::Tensor& x);  // [..., d_model] -> [..., d_model]

  torch::nn::Linear fc1{nullptr}, fc2{nullptr};
};
TORCH_MODULE(GatedMlp);

}  // namespace serpentine
