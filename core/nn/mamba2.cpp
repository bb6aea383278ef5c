#include "core/nn/mamba2.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/short_conv.h"
#include "core/ops/causal_conv1d.h"
#include "core/ops/gate.h"
#include "core/ops/merge.h"
#include "core/ops/ssd.h"

namespace serpentine {
namespace {

constexpr const char* kMamba2Who = "Mamba2";

void check(const Mamba2Options& options) {
  SERPENTINE_CHECK(options.d_model >= 1 && options.d_state >= 1 && options.inner() >= 1, kMamba2Who,
                   "d_model, d_state and int(expand * d_model) must be at least 1, got ",
                   options.d_model, ", ", options.d_state, " and ", options.inner());
  SERPENTINE_CHECK(options.d_conv >= 1 && options.d_conv <= kMaxConvWidth, kMamba2Who,
                   "d_conv must be in 1..", kMaxConvWidth, ", got ", options.d_conv);
  SERPENTINE_CHECK(options.scanned() <= options.inner(), kMamba2Who, "d_ssm must not exceed the ",
                   options.inner(), " inner channels, got ", options.scanned());
  SERPENTINE_CHECK(options.headdim >= 1 && options.scanned() % options.headdim == 0, kMamba2Who,
                   "headdim must divide the ", options.scanned(), " scanned channels, got ",
                   options.headdim);
  SERPENTINE_CHECK(options.ngroups >= 1 && options.heads() % options.ngroups == 0, kMamba2Who,
                   "ngroups must divide the ", options.heads(), " heads, got ", options.ngroups);
}

}  // namespace

void Mamba2Options::fields(Fields& f) {
  f("d_state", d_state, "states a channel", {.least = 1});
  f("d_conv", d_conv, "width of the causal convolution", {.least = 1, .most = kMaxConvWidth});
  f("expand", expand, "inner channels as a multiple of the model's; a fraction is cut off",
    {.least = 0});
  f("headdim", headdim, "channels a head", {.least = 1});
  f("d_ssm", d_ssm, "inner channels that are scanned, the others are only gated; 0 for all",
    {.least = 0});
  f("ngroups", ngroups, "groups of heads that share B and C", {.least = 1});
  f("D_has_hdim", D_has_hdim, "one D a channel instead of one a head");
  f("rmsnorm", rmsnorm, "RMS norm with the gate; false for the gate alone");
  f("norm_before_gate", norm_before_gate, "normalise first, then gate");
  f("bias", bias, "biases of the input and output projections");
  f("conv_bias", conv_bias, "bias of the convolution");
  f("learnable_init_states", learnable_init_states, "learn the states that sequences start from");
  f("A_min", A_min, "least initial decay rate", {.least = 0});
  f("A_max", A_max, "largest initial decay rate", {.least = 0});
  f("dt_min", dt_min, "least initial step size", {.least = 0});
  f("dt_max", dt_max, "largest initial step size", {.least = 0});
  f("dt_init_floor", dt_init_floor, "initial step sizes are not below this", {.least = 0});
  f("dt_least", dt_least, "step sizes are clamped to be at least this", {.least = 0});
  f("dt_most", dt_most, "step sizes are clamped to be at most this", {.least = 0});
  f("chunk_size", chunk_size, "most tokens a chunk of the scan; 0 lets the scan choose",
    {.least = 0});
}

GatedNormImpl::GatedNormImpl(int64_t channels, int64_t group, bool before_gate, double eps)
    : group_(group), before_gate_(before_gate), eps_(eps) {
  weight = register_parameter("weight", torch::ones({channels}));
}

torch::Tensor GatedNormImpl::forward(const torch::Tensor& x, const torch::Tensor& gate) {
  return gated_rms_norm({x, gate, weight, {}, eps_, group_, before_gate_});
}

Mamba2Impl::Mamba2Impl(const Mamba2Options& chosen) : options(chosen) {
  check(options);
  const int64_t inner = options.inner(), scanned = options.scanned(), heads = options.heads();
  const int64_t convolved = options.conv_channels();
  const int64_t projected = 2 * (inner - scanned) + scanned + convolved + heads;
  using torch::nn::LinearOptions;
  in_proj = register_module(
      "in_proj", torch::nn::Linear(LinearOptions(options.d_model, projected).bias(options.bias)));
  conv1d = register_module(
      "conv1d", torch::nn::Conv1d(torch::nn::Conv1dOptions(convolved, convolved, options.d_conv)
                                      .groups(convolved)
                                      .padding(options.d_conv - 1)
                                      .bias(options.conv_bias)));
  if (options.learnable_init_states) {
    init_states =
        register_parameter("init_states", torch::zeros({heads, options.headdim, options.d_state}));
  }
  dt_bias = register_parameter("dt_bias", torch::empty({heads}));
  A_log = register_parameter("A_log", torch::empty({heads}));
  D = register_parameter("D", torch::empty({options.D_has_hdim ? scanned : heads}));
  if (options.rmsnorm) {
    norm = register_module("norm",
                           GatedNorm(scanned, scanned / options.ngroups, options.norm_before_gate));
  }
  out_proj = register_module(
      "out_proj", torch::nn::Linear(LinearOptions(inner, options.d_model).bias(options.bias)));
  reset();
}

void Mamba2Impl::reset() {
  const torch::NoGradGuard no_grad;
  for (auto* linear : {&in_proj, &out_proj}) (*linear)->reset_parameters();
  conv1d->reset_parameters();
  if (init_states.defined()) init_states.zero_();
  if (!norm.is_empty()) norm->weight.fill_(1);

  // softplus(bias) is the initial step size, log-uniform between its bounds
  const auto dt = torch::empty_like(dt_bias)
                      .uniform_(std::log(options.dt_min), std::log(options.dt_max))
                      .exp()
                      .clamp_min(options.dt_init_floor);
  dt_bias.copy_(dt + torch::log(-torch::expm1(-dt)));
  A_log.uniform_(options.A_min, options.A_max).log_();
  D.fill_(1);
}

torch::Tensor Mamba2Impl::mix(const torch::Tensor& x, const ScanOrder& order, MixerState* state) {
  check_shape(kMamba2Who, x, "x", {-1, order.num_tokens, options.d_model}, "B, T, d_model");
  const int64_t scanned = options.scanned(), gated = options.inner() - scanned;
  const int64_t heads = options.heads(), shared = options.ngroups * options.d_state;
  const auto projected = in_proj(x);
  const auto parts =
      projected.split_with_sizes({gated, gated, scanned, options.conv_channels(), heads}, -1);
  const auto conv =
      short_conv(conv1d, parts[3], order, state != nullptr ? &state->conv : nullptr);  // [B, P, D]
  const auto rows = conv.split_with_sizes({scanned, shared, shared}, -1);

  const auto wide = conv.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  SsdArgs scan;
  scan.x = rows[0].unflatten(-1, {heads, options.headdim});
  scan.dt = gather_rows(parts[4], order).to(conv.scalar_type());
  scan.A = -A_log.to(wide).exp().unsqueeze(0);
  scan.B = rows[1].unflatten(-1, {options.ngroups, options.d_state});
  scan.C = rows[2].unflatten(-1, {options.ngroups, options.d_state});
  scan.D =
      options.D_has_hdim ? D.to(wide).view({1, heads, options.headdim}) : D.to(wide).unsqueeze(0);
  scan.dt_bias = dt_bias.to(wide).unsqueeze(0);
  scan.dt_min = options.dt_least;
  scan.dt_max = options.dt_most;
  scan.chunk = options.chunk_size;
  if (state != nullptr) {
    scan.initial_state = state->ssm.to(wide).unsqueeze(1);
  } else if (init_states.defined()) {
    scan.initial_state =
        init_states.to(wide).expand({x.size(0), order.num_sequences(), -1, -1, -1});
  }
  const auto scanned_rows = ssd(scan, order, Rows::kPosition, Merge::kSum, state != nullptr);
  if (state != nullptr) state->ssm = scanned_rows.final_state.squeeze(1);

  auto y = scanned_rows.y.flatten(2);  // [B, T, d_ssm]
  if (norm.is_empty()) y = silu_gate(y, parts[2]);
  const auto before_norm = y;
  if (!norm.is_empty()) y = norm(y, parts[2]);
  if (gated > 0) y = torch::cat({silu_gate(parts[1], parts[0]), y}, -1);
  if (trace != nullptr) {
    (*trace)["zxbcdt"] = projected;
    (*trace)["after_conv"] = conv.transpose(1, 2);
    (*trace)["A"] = scan.A.squeeze(0);
    (*trace)["B"] = scan.B;
    (*trace)["C"] = scan.C;
    (*trace)["dt"] = parts[4];
    (*trace)["scan_output"] = before_norm.unflatten(-1, {heads, options.headdim});
    (*trace)["before_out_proj"] = y;
  }
  return out_proj(y);
}

torch::Tensor Mamba2Impl::forward(const torch::Tensor& x, const ScanOrder& order) {
  return mix(x, order, nullptr);
}

torch::Tensor Mamba2Impl::forward(const torch::Tensor& x) {
  SERPENTINE_CHECK(x.dim() == 3, kMamba2Who, "x must be [B, T, d_model], got ", x.sizes());
  return mix(x, identity_order(x.size(1), x.device()), nullptr);
}

torch::Tensor Mamba2Impl::prefill(const torch::Tensor& x, MixerState& state) {
  SERPENTINE_CHECK(x.dim() == 3, kMamba2Who, "x must be [B, T, d_model], got ", x.sizes());
  if (!state.conv.defined()) state = empty_state(x.size(0));
  check_shape(kMamba2Who, state.conv, "the state's conv",
              {x.size(0), options.conv_channels(), options.d_conv}, "B, D, W");
  check_shape(kMamba2Who, state.ssm, "the state's ssm",
              {x.size(0), options.heads(), options.headdim, options.d_state}, "B, H, E, N");
  return mix(x, identity_order(x.size(1), x.device()), &state);
}

torch::Tensor Mamba2Impl::step(const torch::Tensor& x, MixerState& state) {
  check_shape(kMamba2Who, x, "a step's x", {-1, 1, options.d_model}, "B, 1, d_model");
  return prefill(x, state);
}

MixerState Mamba2Impl::empty_state(int64_t batch) const {
  const auto weight = conv1d->weight.options().requires_grad(false);
  const auto wide = weight.dtype() == torch::kDouble ? torch::kDouble : torch::kFloat;
  const int64_t heads = options.heads();
  MixerState state;
  state.conv = torch::zeros({batch, options.conv_channels(), options.d_conv}, weight);
  state.ssm = init_states.defined() ? init_states.to(wide).expand({batch, -1, -1, -1})
                                    : torch::zeros({batch, heads, options.headdim, options.d_state},
                                                   weight.dtype(wide));
  return state;
}

}  // namespace serpentine
