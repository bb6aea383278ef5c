#include "core/nn/hydra.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/causal_conv1d.h"
#include "core/ops/merge.h"
#include "core/ops/ssd.h"

namespace serpentine {
namespace {

constexpr const char* kHydraWho = "Hydra";

/// Each row's predecessor in its sequence, zeros before the first. x: [B, P, H, E].
torch::Tensor predecessors(const torch::Tensor& x, const ScanOrder& order) {
  if (x.size(1) == 0) return x;
  const auto before =
      torch::cat({torch::zeros_like(x.narrow(1, 0, 1)), x.narrow(1, 0, x.size(1) - 1)}, 1);
  const auto starts = order.offsets.slice(0, 0, -1).to(torch::kLong);
  const auto mask = torch::ones({x.size(1) + 1}, x.options().requires_grad(false))
                        .index_fill(0, starts, 0)  // an empty last sequence starts behind the end
                        .narrow(0, 0, x.size(1));
  return before * mask.view({-1, 1, 1});
}

}  // namespace

void HydraOptions::fields(Fields& f) {
  f("d_state", d_state, "states a channel", {.least = 1});
  f("d_conv", d_conv, "taps of the centred convolution, an odd number", {.least = 1, .most = 13});
  f("expand", expand, "inner channels as a multiple of the model's; a fraction is cut off",
    {.least = 0});
  f("headdim", headdim, "channels a head", {.least = 1});
  f("ngroups", ngroups, "groups of heads that share B and C", {.least = 1});
  f("shared", shared, "the same B and C in both directions");
  f("bias", bias, "biases of the input and output projections");
  f("conv_bias", conv_bias, "bias of the convolution");
  f("learnable_init_states", learnable_init_states, "learn the states that sequences start from");
  f("dt_min", dt_min, "least initial step size", {.least = 0});
  f("dt_max", dt_max, "largest initial step size", {.least = 0});
  f("dt_init_floor", dt_init_floor, "initial step sizes are not below this", {.least = 0});
  f("dt_least", dt_least, "step sizes are clamped to be at least this", {.least = 0});
  f("dt_most", dt_most, "step sizes are clamped to be at most this", {.least = 0});
  f("chunk_size", chunk_size, "most tokens a chunk of the scan; 0 lets the scan choose",
    {.least = 0});
}

HydraImpl::HydraImpl(const HydraOptions& chosen) : options(chosen) {
  const int64_t inner = options.inner(), states = options.d_state;
  SERPENTINE_CHECK(options.d_model >= 1 && states >= 1 && inner >= 1, kHydraWho,
                   "d_model, d_state and int(expand * d_model) must be at least 1, got ",
                   options.d_model, ", ", states, " and ", inner);
  SERPENTINE_CHECK(options.d_conv % 2 == 1 && options.d_conv / 2 < kMaxConvWidth, kHydraWho,
                   "d_conv must be odd and below ", 2 * kMaxConvWidth, ", got ", options.d_conv);
  SERPENTINE_CHECK(options.headdim >= 1 && inner % options.headdim == 0, kHydraWho,
                   "headdim must divide the ", inner, " inner channels, got ", options.headdim);
  const int64_t heads = options.heads();
  SERPENTINE_CHECK(options.ngroups >= 1 && heads % options.ngroups == 0, kHydraWho,
                   "ngroups must divide the ", heads, " heads, got ", options.ngroups);
  const int64_t shared = 2 * options.ngroups * states;
  const int64_t channels = inner + (options.shared ? 1 : 2) * shared;
  using torch::nn::LinearOptions;
  in_proj = register_module(
      "in_proj",
      torch::nn::Linear(
          LinearOptions(options.d_model, inner + channels + 2 * heads).bias(options.bias)));
  conv1d = register_module(
      "conv1d", torch::nn::Conv1d(torch::nn::Conv1dOptions(channels, channels, options.d_conv)
                                      .groups(channels)
                                      .padding(options.d_conv / 2)
                                      .bias(options.conv_bias)));
  torch::nn::Module& holder =
      options.shared
          ? *register_module("matrix_mixer", std::make_shared<torch::nn::Module>("matrix_mixer"))
          : *this;
  if (options.learnable_init_states) {
    init_states =
        holder.register_parameter("init_states", torch::zeros({heads, options.headdim, states}));
  }
  dt_bias = holder.register_parameter("dt_bias", torch::empty({heads}));
  A_log = holder.register_parameter("A_log", torch::empty({heads}));
  D = holder.register_parameter("D", torch::empty({heads}));
  fc_D = holder.register_module("fc_D", torch::nn::Linear(LinearOptions(inner, heads).bias(false)));
  norm = register_module("norm", GatedNorm(inner, 0, /*before_gate=*/true));
  out_proj = register_module(
      "out_proj", torch::nn::Linear(LinearOptions(inner, options.d_model).bias(options.bias)));
  reset();
}

void HydraImpl::reset() {
  const torch::NoGradGuard no_grad;
  for (auto* linear : {&in_proj, &fc_D, &out_proj}) (*linear)->reset_parameters();
  conv1d->reset_parameters();
  if (init_states.defined()) init_states.zero_();
  norm->weight.fill_(1);
  const auto dt = torch::empty_like(dt_bias)
                      .uniform_(std::log(options.dt_min), std::log(options.dt_max))
                      .exp()
                      .clamp_min(options.dt_init_floor);
  dt_bias.copy_(dt + torch::log(-torch::expm1(-dt)));
  A_log.zero_();
  D.fill_(1);
}

/// SiLU of the centred convolution, [B, T, D]: the past and the present through `order`, the future
/// through `back`.
torch::Tensor HydraImpl::convolved(const torch::Tensor& x, const ScanOrder& order,
                                   const ScanOrder& back) const {
  const int64_t half = options.d_conv / 2;
  const auto weight = conv1d->weight.transpose(0, 1);  // [1, D, W], tap 0 the oldest
  CausalConv1dArgs past;
  past.x = x;
  past.weight = weight.narrow(2, 0, half + 1);
  if (conv1d->bias.defined()) past.bias = conv1d->bias.unsqueeze(0);
  auto y = merge_rows(causal_conv1d(past, order).y, order, Merge::kSum);
  if (half > 0) {
    CausalConv1dArgs future;
    future.x = x;
    const auto taps = weight.narrow(2, half + 1, half).flip(2);
    future.weight = torch::cat({taps, torch::zeros_like(taps.narrow(2, 0, 1))}, 2);
    y = y + merge_rows(causal_conv1d(future, back).y, back, Merge::kSum);
  }
  return torch::silu(y);
}

torch::Tensor HydraImpl::forward(const torch::Tensor& x, const ScanOrder& order) {
  check_shape(kHydraWho, x, "x", {-1, order.num_tokens, options.d_model}, "B, T, d_model");
  SERPENTINE_CHECK(order.num_branches == 1 && order.num_visits() == 1 &&
                       order.num_positions() == order.num_tokens,
                   kHydraWho, "the order must visit each token once, in one branch without pads");
  const int64_t inner = options.inner(), heads = options.heads();
  const int64_t shared = 2 * options.ngroups * options.d_state;
  const auto back = reversed(order);
  const auto projected = in_proj(x);
  const int64_t channels = inner + (options.shared ? 1 : 2) * shared;
  const auto parts = projected.split_with_sizes({inner, channels, heads, heads}, -1);
  const auto u = convolved(parts[1], order, back);  // [B, T, channels]
  const auto own = u.narrow(-1, 0, inner);
  const auto wide = u.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;

  // both directions as two branches of one scan, one row a position
  const auto both = stack({order, back}, /*num_visits=*/2);
  const auto two_ways = [&](const torch::Tensor& one, const torch::Tensor& other) {
    return torch::cat({gather_rows(one, order), gather_rows(other, back)}, 1);
  };
  const auto groups = two_ways(u.narrow(-1, inner, shared),
                               u.narrow(-1, options.shared ? inner : inner + shared, shared))
                          .unflatten(-1, {2, options.ngroups, options.d_state});
  SsdArgs scan;
  scan.x = two_ways(own, own).unflatten(-1, {heads, options.headdim});
  scan.dt = two_ways(parts[2], parts[3]).to(u.scalar_type());
  scan.A = (-A_log.to(wide).exp()).expand({2, heads});
  scan.B = groups.select(2, 0);
  scan.C = groups.select(2, 1);
  scan.dt_bias = dt_bias.to(wide).expand({2, heads});
  scan.dt_min = options.dt_least;
  scan.dt_max = options.dt_most;
  scan.chunk = options.chunk_size;
  if (init_states.defined()) {
    scan.initial_state = init_states.to(wide).expand({x.size(0), both.num_sequences(), -1, -1, -1});
  }
  ScanOrder in_place = both;  // the rows are at their positions already
  in_place.tokens = torch::arange(both.num_positions(), both.tokens.options());
  in_place = make_order(in_place.tokens, both.offsets, both.branch, both.num_positions(), 1);
  const auto scanned = ssd(scan, in_place, Rows::kPosition).y;
  const auto shifted = predecessors(scanned, both);
  const auto sum = merge_rows(shifted.flatten(2), both, Merge::kSum);
  const auto diagonal = torch::linear(own, fc_D->weight) + D;  // [B, T, H]
  const auto y =
      sum + (own.unflatten(-1, {heads, options.headdim}) * diagonal.unsqueeze(-1)).flatten(2);
  const auto normed = norm(y, parts[0]);
  if (trace != nullptr) {
    (*trace)["scan.A"] = scan.A[0];
    const auto doubled = [&](const torch::Tensor& rows) { return torch::cat(rows.chunk(2, 1), 0); };
    (*trace)["scan.x"] = doubled(scan.x);
    (*trace)["scan.B"] = doubled(scan.B);
    (*trace)["scan.C"] = doubled(scan.C);
    (*trace)["scan.dt"] = doubled(torch::softplus(scan.dt + dt_bias));
    (*trace)["scan.y"] = doubled(scanned);
    (*trace)["mixer_output"] = y;
    (*trace)["mixer_diagonal"] = diagonal;
    (*trace)["gate"] = parts[0];
    (*trace)["after_norm"] = normed;
  }
  return out_proj(normed);
}

torch::Tensor HydraImpl::forward(const torch::Tensor& x) {
  SERPENTINE_CHECK(x.dim() == 3, kHydraWho, "x must be [B, T, d_model], got ", x.sizes());
  return forward(x, identity_order(x.size(1), x.device()));
}

torch::Tensor HydraImpl::prefill(const torch::Tensor&, MixerState&) {
  SERPENTINE_CHECK(false, kHydraWho, "it looks both ways and cannot continue a sequence");
  return {};
}

torch::Tensor HydraImpl::step(const torch::Tensor& x, MixerState& state) {
  return prefill(x, state);
}

MixerState HydraImpl::empty_state(int64_t) const {
  SERPENTINE_CHECK(false, kHydraWho, "it looks both ways and carries no state");
  return {};
}

}  // namespace serpentine
