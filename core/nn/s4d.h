// S4D: a convolution with the kernel of a diagonal state space, GELU and a gated projection.
//
// Gu et al., arXiv 2206.11893; keys, initialisation and numbers as state-spaces/s4's models/s4/s4d.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>

#include "core/config.h"
#include "core/nn/mixer.h"

namespace serpentine {

struct S4dOptions {
  int64_t d_model = 256;
  int64_t d_state = 64;  // N, an even number: N / 2 conjugate pairs of modes
  double dropout = 0;    // of whole channels, behind the GELU
  double dt_min = 1e-3, dt_max = 1e-1;
  void fields(Fields& f);  // all but d_model, which the model around it knows
};

/// Keys `C` [H, N/2, 2] (complex as pairs), `log_dt` [H], `log_A_real` and `A_imag` [H, N/2].
class S4dKernelImpl : public torch::nn::Module {
 public:
  explicit S4dKernelImpl(const S4dOptions& options);

  /// K[h, l] = 2 Re sum_n C (exp(dt A) - 1) / A exp(dt A l), dt A held by zero order. -> [H,
  /// length]
  torch::Tensor forward(int64_t length);

  /// exp(dt A) and C (exp(dt A) - 1) / A: complex [H, N/2].
  std::pair<torch::Tensor, torch::Tensor> discretised();

  torch::Tensor C, log_dt, log_A_real, A_imag;
};
TORCH_MODULE(S4dKernel);

class S4dImpl : public torch::nn::Module {
 public:
  explicit S4dImpl(const S4dOptions& options);

  /// x: [B, T, H] -> [B, T, H]
  torch::Tensor forward(const torch::Tensor& x);

  /// One token. x: [B, H]; state: complex [B, H, N/2], undefined at the start.
  torch::Tensor step(const torch::Tensor& x, torch::Tensor& state);

  S4dOptions options;
  S4dKernel kernel{nullptr};
  torch::Tensor D;                               // [H]
  torch::nn::Sequential output_linear{nullptr};  // `0.weight` [2 H, H, 1], `0.bias` [2 H]
  Trace* trace = nullptr;

 private:
  torch::Tensor project(const torch::Tensor& y);
};
TORCH_MODULE(S4d);

struct S4dClassifierOptions {
  int64_t d_input = 1;    // channels of a token
  int64_t d_output = 10;  // classes
  int64_t n_layers = 4;
  bool prenorm = false;
  S4dOptions s4d;  // its d_model is the width; its dropout also that of the residual branches
};

/// A projection, S4D layers with residuals and layer norm, the mean over tokens, a projection.
/// Keys `encoder`, `s4_layers.i`, `norms.i`, `decoder`: state-spaces/s4's example model.
class S4dClassifierImpl : public torch::nn::Module {
 public:
  explicit S4dClassifierImpl(const S4dClassifierOptions& options);

  /// x: [B, T, d_input] -> [B, d_output]
  torch::Tensor forward(const torch::Tensor& x);

  S4dClassifierOptions options;
  torch::nn::Linear encoder{nullptr}, decoder{nullptr};
  torch::nn::ModuleList s4_layers, norms;
  Trace* trace = nullptr;
};
TORCH_MODULE(S4dClassifier);

}  // namespace serpentine
