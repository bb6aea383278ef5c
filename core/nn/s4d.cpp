#include "core/nn/s4d.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/drop_path.h"
#include "core/ops/long_conv.h"

namespace serpentine {
namespace {

constexpr const char* kS4dWho = "S4D";
constexpr double kS4dPi = 3.14159265358979323846;

}  // namespace

void S4dOptions::fields(Fields& f) {
  f("d_state", d_state, "states a channel, an even number", {.least = 2});
  f("dropout", dropout, "probability that a channel is dropped behind the activation",
    {.least = 0, .most = 1});
  f("dt_min", dt_min, "least initial step size", {.least = 0});
  f("dt_max", dt_max, "largest initial step size", {.least = 0});
}

S4dKernelImpl::S4dKernelImpl(const S4dOptions& options) {
  const int64_t channels = options.d_model, modes = options.d_state / 2;
  const double low = std::log(options.dt_min), high = std::log(options.dt_max);
  C = register_parameter(
      "C", torch::view_as_real(torch::randn({channels, modes}, torch::kComplexFloat)).clone());
  log_dt = register_parameter("log_dt", torch::rand({channels}) * (high - low) + low);
  log_A_real = register_parameter("log_A_real", torch::full({channels, modes}, std::log(0.5)));
  A_imag = register_parameter("A_imag",
                              (kS4dPi * torch::arange(modes, torch::kFloat)).repeat({channels, 1}));
}

std::pair<torch::Tensor, torch::Tensor> S4dKernelImpl::discretised() {
  const auto A = torch::complex(-log_A_real.exp(), A_imag);
  const auto decay = A * log_dt.exp().unsqueeze(-1);
  return {decay, torch::view_as_complex(C.contiguous()) * (decay.exp() - 1) / A};
}

torch::Tensor S4dKernelImpl::forward(int64_t length) {
  const auto [decay, weights] = discretised();
  return exponential_kernel(weights.unsqueeze(0), decay, length).squeeze(0);
}

S4dImpl::S4dImpl(const S4dOptions& chosen) : options(chosen) {
  SERPENTINE_CHECK(options.d_model >= 1 && options.d_state >= 2 && options.d_state % 2 == 0,
                   kS4dWho, "d_model must be at least 1 and d_state even, got ", options.d_model,
                   " and ", options.d_state);
  kernel = register_module("kernel", S4dKernel(options));
  D = register_parameter("D", torch::randn({options.d_model}));
  output_linear = register_module(
      "output_linear", torch::nn::Sequential(torch::nn::Conv1d(
                           torch::nn::Conv1dOptions(options.d_model, 2 * options.d_model, 1))));
}

torch::Tensor S4dImpl::project(const torch::Tensor& y) {
  const auto& linear = output_linear->at<torch::nn::Conv1dImpl>(0);
  return torch::glu(torch::linear(y, linear.weight.squeeze(-1), linear.bias), -1);
}

torch::Tensor S4dImpl::forward(const torch::Tensor& x) {
  check_shape(kS4dWho, x, "x", {-1, -1, options.d_model}, "B, T, d_model");
  const auto k = kernel(x.size(1));
  const auto y = (long_conv(x, k.unsqueeze(0)).squeeze(1) + x * D).to(x.scalar_type());
  const auto active = torch::gelu(y);
  if (trace != nullptr) {
    (*trace)["kernel"] = k;
    (*trace)["before_activation"] = y.transpose(1, 2);
    (*trace)["after_activation"] = active.transpose(1, 2);
  }
  return project(drop_channels(active, options.dropout, is_training()));
}

torch::Tensor S4dImpl::step(const torch::Tensor& x, torch::Tensor& state) {
  check_shape(kS4dWho, x, "a step's x", {-1, options.d_model}, "B, d_model");
  const auto [decay, weights] = kernel->discretised();
  state = state.defined() ? state * decay.exp() + x.unsqueeze(-1)
                          : x.unsqueeze(-1).expand({-1, -1, decay.size(1)}).to(decay.dtype());
  const auto y = 2 * torch::real((weights * state).sum(-1)) + x * D;
  return project(torch::gelu(y));
}

S4dClassifierImpl::S4dClassifierImpl(const S4dClassifierOptions& chosen) : options(chosen) {
  const int64_t width = options.s4d.d_model;
  encoder = register_module("encoder", torch::nn::Linear(options.d_input, width));
  s4_layers = register_module("s4_layers", torch::nn::ModuleList());
  norms = register_module("norms", torch::nn::ModuleList());
  for (int64_t layer = 0; layer < options.n_layers; ++layer) {
    s4_layers->push_back(S4d(options.s4d));
    norms->push_back(torch::nn::LayerNorm(torch::nn::LayerNormOptions({width})));
  }
  decoder = register_module("decoder", torch::nn::Linear(width, options.d_output));
}

torch::Tensor S4dClassifierImpl::forward(const torch::Tensor& input) {
  auto x = encoder(input);
  if (trace != nullptr) (*trace)["after_encoder"] = x;
  for (size_t i = 0; i < s4_layers->size(); ++i) {
    auto& norm = norms->at<torch::nn::LayerNormImpl>(i);
    const auto mixed = s4_layers->at<S4dImpl>(i).forward(options.prenorm ? norm.forward(x) : x);
    if (trace != nullptr) (*trace)["s4_layer" + std::to_string(i)] = mixed.transpose(1, 2);
    x = x + drop_channels(mixed, options.s4d.dropout, is_training());
    if (!options.prenorm) x = norm.forward(x);
  }
  const auto pooled = x.mean(1);
  if (trace != nullptr) (*trace)["before_decoder"] = pooled;
  return decoder(pooled);
}

}  // namespace serpentine
