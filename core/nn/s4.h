// The S4 layer: a long convolution, an activation, a gated projection; and its recurrence.
//
// Gu et al., arXiv 2111.00396. Keys and numbers as state-spaces/s4's S4Block.
#pragma once

#include <torch/nn/modules/container/sequential.h>

#include "core/nn/mixer.h"
#include "core/nn/s4_kernel.h"

namespace serpentine {

/// Keys `D` [C, H] and `kernel.*`: the convolution with its skip and activation.
class S4ConvImpl : public torch::nn::Module {
 public:
  explicit S4ConvImpl(const S4Options& options);

  /// x: [B, T, H] -> [B, T, C H]
  torch::Tensor forward(const torch::Tensor& x);

  /// Continues from `state`, complex [B, H, n] (undefined: from nothing), and replaces it. Diagonal
  /// systems stay convolutions; those of low rank go token by token.
  torch::Tensor forward(const torch::Tensor& x, torch::Tensor& state);

  S4Options options;
  S4Kernel kernel{nullptr};
  torch::Tensor D;
  Trace* trace = nullptr;

 private:
  torch::Tensor recur(const torch::Tensor& x, torch::Tensor& state, const S4KernelImpl::Step& step);
  torch::Tensor finish(const torch::Tensor& y, const torch::Tensor& x);
};
TORCH_MODULE(S4Conv);

/// Keys `layer.*`, `output_linear.0.weight` and `.bias`.
class S4Impl : public torch::nn::Module {
 public:
  explicit S4Impl(const S4Options& options);

  /// x: [B, T, H] -> [B, T, H]. lengths: int64 [B], undefined for all: what is behind them is
  /// read as zeros.
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& lengths = {});
  torch::Tensor forward_from(const torch::Tensor& x, torch::Tensor& state);  // as S4Conv
  torch::Tensor step(const torch::Tensor& x, torch::Tensor& state);  // one token, [B, H] -> [B, H]

  S4Options options;
  S4Conv layer{nullptr};
  torch::nn::Sequential output_linear{nullptr};

 private:
  torch::Tensor project(const torch::Tensor& y);
};
TORCH_MODULE(S4);

}  // namespace serpentine
