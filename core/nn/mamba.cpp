#include "core/nn/mamba.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/short_conv.h"
#include "core/ops/causal_conv1d.h"
#include "core/ops/gate.h"
#include "core/ops/selective_scan.h"

namespace serpentine {
namespace {

constexpr const char* kMambaWho = "Mamba";

}  // namespace

void MambaOptions::fields(Fields& f) {
  f("d_state", d_state, "states a channel", {.least = 1});
  f("d_conv", d_conv, "width of the causal convolution", {.least = 1, .most = kMaxConvWidth});
  f("expand", expand, "inner channels as a multiple of the model's; a fraction is cut off",
    {.least = 0});
  f("dt_rank", dt_rank,
    "rank of the projection to delta; 0 means a sixteenth of the model's channels", {.least = 0});
  f("bias", bias, "biases of the input and output projections");
  f("conv_bias", conv_bias, "bias of the convolution");
  f("dt_min", dt_min, "least initial step size", {.least = 0});
  f("dt_max", dt_max, "largest initial step size", {.least = 0});
  f("dt_scale", dt_scale, "scale of the initial projection to delta", {.least = 0});
  f("dt_init_floor", dt_init_floor, "initial step sizes are not below this", {.least = 0});
  f("keep", keep,
    "of the mixer's inner part for the backward pass: nothing (it is computed again: least "
    "memory), "
    "scan (not the scan), all; auto: nothing on a GPU, all on a CPU",
    {.choices = {"auto", "nothing", "scan", "all"}});
}

MixerKeep MambaOptions::kept(at::Device device) const {
  if (keep == "all" || (keep == "auto" && device.is_cpu())) return MixerKeep::kAll;
  return keep == "scan" ? MixerKeep::kScan : MixerKeep::kNothing;
}

MambaImpl::MambaImpl(const MambaOptions& chosen) : options(chosen) {
  const int64_t inner = options.inner(), rank = options.rank(), states = options.d_state;
  SERPENTINE_CHECK(options.d_model >= 1 && states >= 1 && inner >= 1, kMambaWho,
                   "d_model, d_state and int(expand * d_model) must be at least 1, got ",
                   options.d_model, ", ", states, " and ", inner);
  SERPENTINE_CHECK(options.d_conv >= 1 && options.d_conv <= kMaxConvWidth, kMambaWho,
                   "d_conv must be in 1..", kMaxConvWidth, ", got ", options.d_conv);
  using torch::nn::LinearOptions;
  in_proj = register_module(
      "in_proj", torch::nn::Linear(LinearOptions(options.d_model, 2 * inner).bias(options.bias)));
  conv1d = register_module("conv1d",
                           torch::nn::Conv1d(torch::nn::Conv1dOptions(inner, inner, options.d_conv)
                                                 .groups(inner)
                                                 .padding(options.d_conv - 1)
                                                 .bias(options.conv_bias)));
  x_proj = register_module("x_proj",
                           torch::nn::Linear(LinearOptions(inner, rank + 2 * states).bias(false)));
  dt_proj = register_module("dt_proj", torch::nn::Linear(LinearOptions(rank, inner).bias(true)));
  out_proj = register_module(
      "out_proj", torch::nn::Linear(LinearOptions(inner, options.d_model).bias(options.bias)));
  A_log = register_parameter("A_log", torch::empty({inner, states}));
  D = register_parameter("D", torch::empty({inner}));
  reset();
}

void MambaImpl::reset() {
  const torch::NoGradGuard no_grad;
  for (auto* linear : {&in_proj, &x_proj, &out_proj}) (*linear)->reset_parameters();
  conv1d->reset_parameters();
  const double bound = options.dt_scale / std::sqrt(static_cast<double>(options.rank()));
  dt_proj->weight.uniform_(-bound, bound);

  // softplus(bias) is the initial step size, log-uniform between its bounds
  const auto dt = torch::empty({options.inner()}, dt_proj->bias.options())
                      .uniform_(std::log(options.dt_min), std::log(options.dt_max))
                      .exp()
                      .clamp_min(options.dt_init_floor);
  dt_proj->bias.copy_(dt + torch::log(-torch::expm1(-dt)));
  A_log.copy_(torch::arange(1, options.d_state + 1, A_log.options()).log().expand_as(A_log));
  D.fill_(1);
}

torch::Tensor MambaImpl::mix(const torch::Tensor& x, const ScanOrder& order, MixerState* state) {
  check_shape(kMambaWho, x, "x", {-1, order.num_tokens, options.d_model}, "B, T, d_model");
  if (state == nullptr && trace == nullptr && order.num_branches == 1 && takes_mamba_mixer(x)) {
    const auto row = [](const torch::Tensor& one) {
      return one.defined() ? one.unsqueeze(0) : one;
    };
    MambaMixerOptions passes;
    passes.keep = options.kept(x.device());
    return mamba_mixer({x, in_proj->weight, in_proj->bias, row(conv1d->weight.squeeze(1)),
                        row(conv1d->bias), row(x_proj->weight), row(dt_proj->weight),
                        row(dt_proj->bias), row(A_log), row(D), out_proj->weight, out_proj->bias},
                       order, passes);
  }
  const auto xz = in_proj(x);
  const auto halves = xz.chunk(2, -1);  // [B, T, D]: what is scanned, and its gate

  const auto u = short_conv(conv1d, halves[0], order,
                            state != nullptr ? &state->conv : nullptr);  // [B, P, D]

  const auto parts =
      x_proj(u).split_with_sizes({options.rank(), options.d_state, options.d_state}, -1);
  const auto wide = u.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  SelectiveScanArgs scan;
  scan.u = u;
  scan.delta = torch::linear(parts[0], dt_proj->weight)
                   .to(u.scalar_type());  // the scan adds the bias in fp32
  scan.A = -A_log.to(wide).exp().unsqueeze(0);
  scan.B = parts[1].to(u.scalar_type());
  scan.C = parts[2].to(u.scalar_type());
  scan.D = D.to(wide).unsqueeze(0);
  scan.delta_bias = dt_proj->bias.to(wide).unsqueeze(0);
  if (state != nullptr) scan.initial_state = state->ssm.to(wide).unsqueeze(1);
  const auto scanned = selective_scan(scan, order, Rows::kPosition, Merge::kSum, state != nullptr);
  if (state != nullptr) state->ssm = scanned.final_state.squeeze(1);

  const auto gated = silu_gate(scanned.y, halves[1]);
  if (trace != nullptr) {
    (*trace)["after_in_proj"] = xz.transpose(1, 2);
    (*trace)["after_conv"] = u.transpose(1, 2);
    (*trace)["delta"] = scan.delta.transpose(1, 2);
    (*trace)["A"] = scan.A.squeeze(0);
    (*trace)["B"] = scan.B.transpose(1, 2);
    (*trace)["C"] = scan.C.transpose(1, 2);
    (*trace)["scan_output"] = gated.transpose(1, 2);
  }
  return out_proj(gated);
}

torch::Tensor MambaImpl::forward(const torch::Tensor& x, const ScanOrder& order) {
  return mix(x, order, nullptr);
}

torch::Tensor MambaImpl::forward(const torch::Tensor& x) {
  SERPENTINE_CHECK(x.dim() == 3, kMambaWho, "x must be [B, T, d_model], got ", x.sizes());
  return mix(x, identity_order(x.size(1), x.device()), nullptr);
}

torch::Tensor MambaImpl::prefill(const torch::Tensor& x, MixerState& state) {
  SERPENTINE_CHECK(x.dim() == 3, kMambaWho, "x must be [B, T, d_model], got ", x.sizes());
  if (!state.conv.defined()) state = empty_state(x.size(0));
  check_shape(kMambaWho, state.conv, "the state's conv",
              {x.size(0), options.inner(), options.d_conv}, "B, D, W");
  check_shape(kMambaWho, state.ssm, "the state's ssm",
              {x.size(0), options.inner(), options.d_state}, "B, D, N");
  return mix(x, identity_order(x.size(1), x.device()), &state);
}

torch::Tensor MambaImpl::step(const torch::Tensor& x, MixerState& state) {
  check_shape(kMambaWho, x, "a step's x", {-1, 1, options.d_model}, "B, 1, d_model");
  return prefill(x, state);
}

MixerState MambaImpl::empty_state(int64_t batch) const {
  const auto weight = conv1d->weight.options();
  const auto wide = weight.dtype() == torch::kDouble ? torch::kDouble : torch::kFloat;
  return {torch::zeros({batch, options.inner(), options.d_conv}, weight.requires_grad(false)),
          torch::zeros({batch, options.inner(), options.d_state},
                       weight.dtype(wide).requires_grad(false))};
}

}  // namespace serpentine
