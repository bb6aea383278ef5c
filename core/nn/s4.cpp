#include "core/nn/s4.h"

#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/drop_path.h"
#include "core/ops/long_conv.h"

namespace serpentine {
namespace {

constexpr const char* kS4Who = "S4";

}  // namespace

void S4Options::fields(Fields& f) {
  const std::vector<std::string> transforms{"exp", "relu", "sigmoid", "softplus", "none"};
  f("d_state", d_state, "states a channel, an even number", {.least = 2});
  f("l_max", l_max, "longest kernel; 0 for as long as the input", {.least = 0});
  f("channels", channels, "kernels a channel", {.least = 1});
  f("bidirectional", bidirectional, "kernels from the end as well");
  f("mode", mode, "diagonal, or diagonal plus low rank", {.choices = {"dplr", "diag"}});
  f("init", init,
    "initial system: legs, legt, fourier, diag-lin, diag-inv, diag-inv2, diag-quad, "
    "diag-real or diag-legs");
  f("disc", disc, "discretisation of diagonal systems; empty for zoh",
    {.choices = {"", "zoh", "bilinear"}});
  f("rank", rank, "rank of the correction", {.least = 1});
  f("n_ssm", n_ssm, "independent systems, shared by the channels in turn; 0 for one a channel",
    {.least = 0});
  f("real_transform", real_transform, "what makes the decay rate positive",
    {.choices = transforms});
  f("dt_transform", dt_transform, "what makes the step size positive", {.choices = transforms});
  f("dt_tie", dt_tie, "one step size a channel instead of one a mode");
  f("dt_min", dt_min, "least initial step size", {.least = 0});
  f("dt_max", dt_max, "largest initial step size", {.least = 0});
  f("dropout", dropout, "probability that a channel is dropped behind the activation",
    {.least = 0, .most = 1});
  f("activation", activation, "activation behind the convolution", {.choices = {"gelu", "id"}});
  f("final_act", final_act, "what ends the layer", {.choices = {"glu", "id"}});
}

S4ConvImpl::S4ConvImpl(const S4Options& chosen) : options(chosen) {
  kernel = register_module("kernel", S4Kernel(options));
  D = register_parameter("D", torch::randn({options.channels, options.d_model}));
}

/// y: [B, C, T, H], x: [B, T, H] -> [B, T, C H]
torch::Tensor S4ConvImpl::finish(const torch::Tensor& y, const torch::Tensor& x) {
  const auto sum = (y + x.unsqueeze(1) * D.unsqueeze(1)).permute({0, 2, 1, 3}).flatten(2);
  const auto typed = sum.to(x.scalar_type());
  const auto active = options.activation == "gelu" ? torch::gelu(typed) : typed;
  if (trace != nullptr) (*trace)["layer_output"] = active;
  return drop_channels(active, options.dropout, is_training());
}

torch::Tensor S4ConvImpl::forward(const torch::Tensor& x) {
  check_shape(kS4Who, x, "x", {-1, -1, options.d_model}, "B, T, d_model");
  const int64_t length = options.l_max > 0 ? std::min(options.l_max, x.size(1)) : x.size(1);
  const auto k = kernel(length);
  if (trace != nullptr) (*trace)["kernel"] = k;
  if (!options.bidirectional) return finish(long_conv(x, k), x);
  const auto ways = k.chunk(2, 0);
  return finish(long_conv(x, ways[0]) + long_conv_from_end(x, ways[1]), x);
}

torch::Tensor S4ConvImpl::recur(const torch::Tensor& x, torch::Tensor& state,
                                const S4KernelImpl::Step& step) {
  std::vector<torch::Tensor> outputs;
  for (int64_t t = 0; t < x.size(1); ++t) {
    const auto fed = step.B * x.select(1, t).unsqueeze(-1);  // [B, H, n]
    const auto kept = step.decay.dim() == 2 ? state * step.decay
                                            : torch::einsum("hmn,bhn->bhm", {step.decay, state});
    state = kept + fed;
    outputs.push_back(torch::real(torch::einsum("chn,bhn->bch", {step.C, state})));
  }
  return torch::stack(outputs, 2);  // [B, C, T, H]
}

torch::Tensor S4ConvImpl::forward(const torch::Tensor& x, torch::Tensor& state) {
  check_shape(kS4Who, x, "x", {-1, -1, options.d_model}, "B, T, d_model");
  SERPENTINE_CHECK(!options.bidirectional, kS4Who, "a bidirectional layer carries no state");
  const auto step = kernel->step();
  const std::vector<int64_t> shape{x.size(0), options.d_model, kernel->state_size()};
  if (!state.defined()) state = torch::zeros(shape, step.B.options().requires_grad(false));
  check_shape(kS4Who, state, "the state", shape, "B, H, n");
  const int64_t length = x.size(1);
  if (length == 0) return finish(long_conv(x, kernel(0)), x);
  if (step.decay.dim() == 3 || length == 1) return finish(recur(x, state, step), x);

  // the state's response, and its end: both sums over powers of the decay
  const auto rate = step.decay.log();
  std::vector<torch::Tensor> responses, ends;
  for (int64_t b = 0; b < x.size(0); ++b) {
    const auto weights = step.C * (state[b] * step.decay) / 2;
    responses.push_back(exponential_kernel(weights, rate, length).transpose(1, 2));
  }
  const auto lag = torch::arange(length - 1, -1, -1, kernel->inv_dt.options().requires_grad(false))
                       .unsqueeze(-1);                  // [T, 1]
  const auto powers = (rate.unsqueeze(1) * lag).exp();  // [H, T, n]
  const auto fed = torch::einsum("bth,htn->bhn", {x.to(powers.dtype()), powers}) * step.B;
  const auto y = long_conv(x, kernel(length)) + torch::stack(responses);
  state = state * (rate * static_cast<double>(length)).exp() + fed;
  return finish(y, x);
}

S4Impl::S4Impl(const S4Options& chosen) : options(chosen) {
  layer = register_module("layer", S4Conv(options));
  const int64_t width = options.final_act == "glu" ? 2 * options.d_model : options.d_model;
  output_linear = register_module("output_linear", torch::nn::Sequential(torch::nn::Linear(
                                                       options.channels * options.d_model, width)));
}

torch::Tensor S4Impl::project(const torch::Tensor& y) {
  const auto projected = output_linear->at<torch::nn::LinearImpl>(0).forward(y);
  return options.final_act == "glu" ? torch::glu(projected, -1) : projected;
}

torch::Tensor S4Impl::forward(const torch::Tensor& x, const torch::Tensor& lengths) {
  if (!lengths.defined()) return project(layer->forward(x));
  check_shape(kS4Who, lengths, "lengths", {x.size(0)}, "B");
  const auto place = torch::arange(x.size(1), lengths.options());
  const auto inside = place.unsqueeze(0) < lengths.unsqueeze(1);
  return project(layer->forward(x * inside.unsqueeze(-1).to(x.scalar_type())));
}

torch::Tensor S4Impl::forward_from(const torch::Tensor& x, torch::Tensor& state) {
  return project(layer->forward(x, state));
}

torch::Tensor S4Impl::step(const torch::Tensor& x, torch::Tensor& state) {
  check_shape(kS4Who, x, "a step's x", {-1, options.d_model}, "B, d_model");
  return forward_from(x.unsqueeze(1), state).squeeze(1);
}

}  // namespace serpentine
