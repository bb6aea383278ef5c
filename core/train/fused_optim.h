// Steps of Adam, AdamW and SGD over all parameters at once.
//
// LibTorch's C++ optimisers run some ten kernels for each parameter: on a GPU a model of 300
// parameters launches 3,000 of them a step, more than its forward and backward. The fused operators
// behind PyTorch's `fused=True` do the same sums in one launch for many tensors.
#pragma once

#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

namespace serpentine {

/// One step on the gradients at hand; states are created, advanced and kept where LibTorch's own
/// step keeps them, so either step continues the other's run. Equal to it up to fp32 rounding.
void fused_step(torch::optim::Adam& optimizer);
void fused_step(torch::optim::AdamW& optimizer);
void fused_step(torch::optim::SGD& optimizer);

/// `Base` whose step is fused while its parameters lie on a GPU, and LibTorch's own on a CPU.
template <class Base>
class FusedOnGpu : public Base {
 public:
  using Base::Base;
  torch::Tensor step(torch::optim::Optimizer::LossClosure closure = nullptr) override {
    for (const auto& group : this->param_groups()) {
      for (const auto& parameter : group.params()) {
        if (closure || !parameter.is_cuda()) return Base::step(closure);
      }
    }
    fused_step(static_cast<Base&>(*this));
    return {};
  }
};

}  // namespace serpentine
