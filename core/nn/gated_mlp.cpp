#include "core/nn/gated_mlp.h"

#include <torch/torch.h>

#include "core/ops/gate.h"

namespace serpentine {

GatedMlpImpl::GatedMlpImpl(int64_t d_model, int64_t hidden) {
  const int64_t wide = (hidden + 127) / 128 * 128;
  fc1 = register_module("fc1",
                        torch::nn::Linear(torch::nn::LinearOptions(d_model, 2 * wide).bias(false)));
  fc2 = register_module("fc2",
                        torch::nn::Linear(torch::nn::LinearOptions(wide, d_model).bias(false)));
}

torch::Tensor GatedMlpImpl::forward(const torch::Tensor& x) {
  const auto halves = fc1(x).chunk(2, -1);
  return fc2(silu_gate(halves[0], halves[1]));
}

}  // namespace serpentine
