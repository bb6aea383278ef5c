#include "core/nn/mamba3.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/gate.h"
#include "core/ops/merge.h"
#include "core/ops/ssd.h"

namespace serpentine {
namespace {

constexpr const char* kMamba3Who = "Mamba3";
constexpr double kMamba3Pi = 3.14159265358979323846;

/// Turns the first pairs (2 i, 2 i + 1) of x by angles [..., i]; the rest stays.
torch::Tensor turned(const torch::Tensor& x, const torch::Tensor& angles) {
  const int64_t count = 2 * angles.size(-1);
  const auto pairs = x.narrow(-1, 0, count).unflatten(-1, {angles.size(-1), 2});
  const auto a = pairs.select(-1, 0), b = pairs.select(-1, 1);
  const auto cosine = angles.cos(), sine = angles.sin();
  const auto made = torch::stack({a * cosine - b * sine, a * sine + b * cosine}, -1).flatten(-2);
  return torch::cat({made, x.narrow(-1, count, x.size(-1) - count)}, -1);
}

/// Each row's successor in its sequence, zeros behind the last. x: [B, P, ...].
torch::Tensor successors(const torch::Tensor& x, const ScanOrder& order) {
  if (x.size(1) == 0) return x;
  const auto next =
      torch::cat({x.narrow(1, 1, x.size(1) - 1), torch::zeros_like(x.narrow(1, 0, 1))}, 1);
  if (order.num_sequences() == 1) return next;
  // empty sequences name the end of the one before, or nothing
  const auto ends = order.offsets.slice(0, 1).to(torch::kLong);
  const auto mask = torch::ones({x.size(1) + 1}, x.options().requires_grad(false))
                        .index_fill(0, ends, 0)
                        .narrow(0, 1, x.size(1));
  return next * mask.unsqueeze(-1);
}

}  // namespace

void Mamba3Options::fields(Fields& f) {
  f("d_state", d_state, "states a channel", {.least = 1});
  f("expand", expand, "inner channels as a multiple of the model's; a fraction is cut off",
    {.least = 0});
  f("headdim", headdim, "channels a head", {.least = 1});
  f("ngroups", ngroups, "groups of heads that share B and C", {.least = 1});
  f("rope_fraction", rope_fraction, "part of the state that turns", {.least = 0, .most = 1});
  f("is_outproj_norm", is_outproj_norm, "RMS norm of each head before the gate");
  f("activation", activation, "how the decay rate grows with its projection",
    {.choices = {"heavy_tail", "softplus"}});
  f("A_floor", A_floor, "least decay rate", {.least = 0});
  f("dt_min", dt_min, "least initial step size", {.least = 0});
  f("dt_max", dt_max, "largest initial step size", {.least = 0});
  f("dt_init_floor", dt_init_floor, "initial step sizes are not below this", {.least = 0});
  f("chunk_size", chunk_size, "most tokens a chunk of the scan; 0 lets the scan choose",
    {.least = 0});
}

Mamba3Impl::Mamba3Impl(const Mamba3Options& chosen) : options(chosen) {
  const int64_t inner = options.inner(), states = options.d_state;
  SERPENTINE_CHECK(options.d_model >= 1 && states >= 1 && inner >= 1, kMamba3Who,
                   "d_model, d_state and int(expand * d_model) must be at least 1, got ",
                   options.d_model, ", ", states, " and ", inner);
  SERPENTINE_CHECK(options.headdim >= 1 && inner % options.headdim == 0, kMamba3Who,
                   "headdim must divide the ", inner, " inner channels, got ", options.headdim);
  const int64_t heads = options.heads();
  SERPENTINE_CHECK(options.ngroups >= 1 && heads % options.ngroups == 0, kMamba3Who,
                   "ngroups must divide the ", heads, " heads, got ", options.ngroups);
  SERPENTINE_CHECK(options.activation == "heavy_tail" || options.activation == "softplus",
                   kMamba3Who, "activation must be heavy_tail or softplus, got ",
                   options.activation);
  const int64_t projected = 2 * inner + 2 * options.ngroups * states + 3 * heads + options.angles();
  using torch::nn::LinearOptions;
  in_proj = register_module(
      "in_proj", torch::nn::Linear(LinearOptions(options.d_model, projected).bias(false)));
  dt_bias = register_parameter("dt_bias", torch::empty({heads}));
  B_bias = register_parameter("B_bias", torch::empty({heads, 1, states}));
  C_bias = register_parameter("C_bias", torch::empty({heads, 1, states}));
  B_norm = register_module("B_norm", Norm(states, NormKind::kRms));
  C_norm = register_module("C_norm", Norm(states, NormKind::kRms));
  D = register_parameter("D", torch::empty({heads}));
  if (options.is_outproj_norm) {
    norm = register_module("norm", GatedNorm(inner, options.headdim, /*before_gate=*/true));
  }
  out_proj = register_module("out_proj",
                             torch::nn::Linear(LinearOptions(inner, options.d_model).bias(false)));
  reset();
}

void Mamba3Impl::reset() {
  const torch::NoGradGuard no_grad;
  for (auto* linear : {&in_proj, &out_proj}) (*linear)->reset_parameters();
  for (auto* ones : {&B_bias, &C_bias, &B_norm->weight, &C_norm->weight, &D}) ones->fill_(1);
  if (!norm.is_empty()) norm->weight.fill_(1);
  const auto dt = torch::empty_like(dt_bias)
                      .uniform_(std::log(options.dt_min), std::log(options.dt_max))
                      .exp()
                      .clamp_min(options.dt_init_floor);
  dt_bias.copy_(dt + torch::log(-torch::expm1(-dt)));
}

torch::Tensor Mamba3Impl::decay_rate(const torch::Tensor& projected) const {
  const auto rate =
      options.activation == "softplus"
          ? torch::softplus(projected)
          : torch::where(projected >= 0, 1 + projected, 1 / (1 - projected.clamp_max(0)));
  return rate.clamp_min(options.A_floor);
}

torch::Tensor Mamba3Impl::mix(const torch::Tensor& x, const ScanOrder& order, MixerState* state) {
  check_shape(kMamba3Who, x, "x", {-1, order.num_tokens, options.d_model}, "B, T, d_model");
  const int64_t inner = options.inner(), heads = options.heads(), states = options.d_state;
  const int64_t shared = options.ngroups * states, batch = x.size(0);
  const auto projected = in_proj(x);
  const auto z = projected.narrow(-1, 0, inner);
  const auto rows = gather_rows(projected.narrow(-1, inner, projected.size(-1) - inner), order);
  const auto parts =
      rows.split_with_sizes({inner, shared, shared, heads, heads, heads, options.angles()}, -1);
  const auto wide = rows.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;

  const auto v = parts[0].unflatten(-1, {heads, options.headdim});        // [B, P, H, E]
  const auto dt = torch::softplus(parts[3].to(wide) + dt_bias.to(wide));  // [B, P, H]
  const auto log_decay = -decay_rate(parts[4].to(wide)) * dt;
  const auto trap = parts[5].to(wide).sigmoid();

  // angles run on in float64, so that their remainder keeps its digits on long sequences
  const auto speed = parts[6].to(wide).tanh() * kMamba3Pi;
  auto angles = (speed.unsqueeze(2) * dt.unsqueeze(-1)).to(torch::kDouble).cumsum(1);
  std::vector<torch::Tensor> last;
  if (state != nullptr) {
    last =
        state->last.to(wide).split_with_sizes({heads * states, inner, heads * options.angles()}, 1);
    angles = angles + last[2].view({batch, 1, heads, options.angles()});
  }
  angles = angles.remainder(2 * kMamba3Pi).to(wide);  // [B, P, H, angles]

  // B and C of a group, then of each head
  const auto per_head = [&](const torch::Tensor& part, Norm& own_norm, const torch::Tensor& bias) {
    const auto normed = own_norm(part.unflatten(-1, {options.ngroups, states}));
    if (trace != nullptr) (*trace)[&own_norm == &B_norm ? "B_normed" : "C_normed"] = normed;
    return turned(
        normed.to(wide).repeat_interleave(heads / options.ngroups, 2) + bias.to(wide).squeeze(1),
        angles);
  };
  const auto k = per_head(parts[1], B_norm, B_bias), q = per_head(parts[2], C_norm, C_bias);

  // token s reaches every later one with the weights of its own step and of the next one's, which
  // share the decays between; token s itself sees its own step only
  const auto own = trap * dt, late = (1 - trap) * dt;
  const auto next = successors(late, order);
  SsdArgs scan;
  scan.x = v.to(x.scalar_type() == torch::kDouble ? torch::kDouble : v.scalar_type());
  scan.dt = own + next;
  scan.log_decay = log_decay;
  scan.B = k.to(scan.x.scalar_type());
  scan.C = q.to(scan.x.scalar_type());
  scan.dt_softplus = false;
  scan.chunk = options.chunk_size;
  if (state != nullptr && rows.size(1) > 0) {
    const auto outer =
        last[1].view({batch, heads, options.headdim, 1}) * last[0].view({batch, heads, 1, states});
    const auto weight = late.select(1, 0).unsqueeze(-1).unsqueeze(-1);
    scan.initial_state = (state->ssm.to(wide) + weight * outer).unsqueeze(1);
  }
  const auto made =
      ssd(scan, ragged_order(order.offsets), Rows::kPosition, Merge::kSum, state != nullptr);
  const auto direct = D.to(wide) - next * (q * k).sum(-1);  // [B, P, H]
  const auto y_rows = (made.y.to(wide) + direct.unsqueeze(-1) * v.to(wide)).to(rows.scalar_type());
  if (state != nullptr && rows.size(1) > 0) {
    const int64_t end = rows.size(1) - 1;
    state->ssm = made.final_state.squeeze(1);
    state->last = torch::cat({k.select(1, end).flatten(1), v.select(1, end).flatten(1).to(wide),
                              angles.select(1, end).flatten(1)},
                             1);
  }
  const auto y = merge_rows(y_rows.flatten(2), order, Merge::kSum);  // [B, T, inner]
  const auto mixed = norm.is_empty() ? silu_gate(y, z) : y;
  if (trace != nullptr) {
    (*trace)["ADT"] = log_decay.transpose(1, 2);
    (*trace)["DT"] = dt.transpose(1, 2);
    (*trace)["trap"] = parts[5].transpose(1, 2);
    (*trace)["angles"] = parts[6].unsqueeze(2).expand({-1, -1, heads, -1});
    (*trace)["x"] = v;
    (*trace)["mixer_output"] = mixed.unflatten(-1, {heads, options.headdim});
  }
  return out_proj(norm.is_empty() ? mixed : norm(mixed, z));
}

torch::Tensor Mamba3Impl::forward(const torch::Tensor& x, const ScanOrder& order) {
  return mix(x, order, nullptr);
}

torch::Tensor Mamba3Impl::forward(const torch::Tensor& x) {
  SERPENTINE_CHECK(x.dim() == 3, kMamba3Who, "x must be [B, T, d_model], got ", x.sizes());
  return mix(x, identity_order(x.size(1), x.device()), nullptr);
}

torch::Tensor Mamba3Impl::prefill(const torch::Tensor& x, MixerState& state) {
  SERPENTINE_CHECK(x.dim() == 3, kMamba3Who, "x must be [B, T, d_model], got ", x.sizes());
  if (!state.last.defined()) state = empty_state(x.size(0));
  check_shape(kMamba3Who, state.ssm, "the state's ssm",
              {x.size(0), options.heads(), options.headdim, options.d_state}, "B, H, E, N");
  return mix(x, identity_order(x.size(1), x.device()), &state);
}

torch::Tensor Mamba3Impl::step(const torch::Tensor& x, MixerState& state) {
  check_shape(kMamba3Who, x, "a step's x", {-1, 1, options.d_model}, "B, 1, d_model");
  return prefill(x, state);
}

MixerState Mamba3Impl::empty_state(int64_t batch) const {
  const auto weight = D.options().requires_grad(false);
  const auto wide = weight.dtype(weight.dtype() == torch::kDouble ? torch::kDouble : torch::kFloat);
  const int64_t heads = options.heads();
  MixerState state;
  state.ssm = torch::zeros({batch, heads, options.headdim, options.d_state}, wide);
  state.last =
      torch::zeros({batch, heads * (options.d_state + options.headdim + options.angles())}, wide);
  return state;
}

}  // namespace serpentine
