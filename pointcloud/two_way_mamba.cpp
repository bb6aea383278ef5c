#include "pointcloud/two_way_mamba.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/causal_conv1d.h"
#include "core/ops/selective_scan.h"

namespace serpentine {
namespace {

constexpr const char* kTwoWayMambaWho = "TwoWayMamba";

}  // namespace

TwoWayMambaImpl::TwoWayMambaImpl(const MambaOptions& chosen, SecondWay second)
    : options(chosen), way(second) {
  using torch::nn::LinearOptions;
  const int64_t inner = options.inner();
  SERPENTINE_CHECK(options.d_model >= 1 && options.d_state >= 1 && inner >= 1, kTwoWayMambaWho,
                   "d_model, d_state and int(expand * d_model) must be at least 1, got ",
                   options.d_model, ", ", options.d_state, " and ", inner);
  in_proj = register_module(
      "in_proj", torch::nn::Linear(LinearOptions(options.d_model, 2 * inner).bias(options.bias)));
  ahead_ = make_set("", "A_log");
  other_ = make_set("_b", "A_b_log");
  out_proj = register_module(
      "out_proj", torch::nn::Linear(LinearOptions(inner, options.d_model).bias(options.bias)));
  reset();
  if (way != SecondWay::kUnused) return;
  for (const torch::nn::Module* module : {static_cast<torch::nn::Module*>(other_.conv.get()),
                                          static_cast<torch::nn::Module*>(other_.x_proj.get()),
                                          static_cast<torch::nn::Module*>(other_.dt_proj.get())}) {
    for (auto& parameter : module->parameters()) parameter.set_requires_grad(false);
  }
  other_.a_log.set_requires_grad(false);
  other_.D.set_requires_grad(false);
}

TwoWayMambaImpl::Set TwoWayMambaImpl::make_set(const std::string& suffix,
                                               const std::string& a_name) {
  using torch::nn::LinearOptions;
  const int64_t inner = options.inner(), rank = options.rank(), states = options.d_state;
  Set set;
  set.conv = register_module(
      "conv1d" + suffix, torch::nn::Conv1d(torch::nn::Conv1dOptions(inner, inner, options.d_conv)
                                               .groups(inner)
                                               .padding(options.d_conv - 1)
                                               .bias(options.conv_bias)));
  set.x_proj = register_module(
      "x_proj" + suffix, torch::nn::Linear(LinearOptions(inner, rank + 2 * states).bias(false)));
  set.dt_proj =
      register_module("dt_proj" + suffix, torch::nn::Linear(LinearOptions(rank, inner).bias(true)));
  set.a_log = register_parameter(a_name, torch::empty({inner, states}));
  set.D = register_parameter("D" + suffix, torch::empty({inner}));
  return set;
}

void TwoWayMambaImpl::reset() {
  const torch::NoGradGuard no_grad;
  for (auto* linear : {&in_proj, &out_proj}) (*linear)->reset_parameters();
  for (Set* set : {&ahead_, &other_}) {
    set->conv->reset_parameters();
    set->x_proj->reset_parameters();
    set->dt_proj->reset_parameters();
    set->a_log.copy_(
        torch::arange(1, options.d_state + 1, set->a_log.options().requires_grad(false))
            .log()
            .expand_as(set->a_log));
    set->D.fill_(1);
  }
  const double bound = options.dt_scale / std::sqrt(static_cast<double>(options.rank()));
  ahead_.dt_proj->weight.uniform_(-bound, bound);

  // softplus(bias) is the initial step size, log-uniform between its bounds
  const auto dt = torch::empty({options.inner()})
                      .uniform_(std::log(options.dt_min), std::log(options.dt_max))
                      .exp()
                      .clamp_min(options.dt_init_floor);
  ahead_.dt_proj->bias.copy_(dt + torch::log(-torch::expm1(-dt)));
}

// x: [B, T, D] -> [B, T, D], the sum over the order's branches, before the gate
torch::Tensor TwoWayMambaImpl::scan(const torch::Tensor& x, const ScanOrder& order,
                                    at::ArrayRef<const Set*> sets) const {
  std::vector<torch::Tensor> weight, bias, A, D, delta_bias;
  const auto wide = x.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  for (const Set* set : sets) {
    weight.push_back(set->conv->weight.squeeze(1));
    if (set->conv->bias.defined()) bias.push_back(set->conv->bias);
    A.push_back(-set->a_log.to(wide).exp());
    D.push_back(set->D.to(wide));
    delta_bias.push_back(set->dt_proj->bias.to(wide));
  }
  CausalConv1dArgs conv;
  conv.x = x;
  conv.weight = torch::stack(weight);
  if (!bias.empty()) conv.bias = torch::stack(bias);
  conv.silu = true;
  const auto u = causal_conv1d(conv, order).y;  // [B, P, D], branch after branch

  std::vector<torch::Tensor> delta, B, C;
  const auto ways = u.chunk(static_cast<int64_t>(sets.size()), 1);
  for (size_t k = 0; k < sets.size(); ++k) {
    const auto parts =
        torch::linear(ways[k], sets[k]->x_proj->weight)
            .split_with_sizes({options.rank(), options.d_state, options.d_state}, -1);
    delta.push_back(torch::linear(parts[0], sets[k]->dt_proj->weight).to(u.scalar_type()));
    B.push_back(parts[1].to(u.scalar_type()));
    C.push_back(parts[2].to(u.scalar_type()));
  }
  const auto joined = [](const std::vector<torch::Tensor>& parts) {
    return parts.size() == 1 ? parts[0] : torch::cat(parts, 1);
  };
  SelectiveScanArgs args;
  args.u = u;
  args.delta = joined(delta);
  args.A = torch::stack(A);
  args.B = joined(B);
  args.C = joined(C);
  args.D = torch::stack(D);
  args.delta_bias = torch::stack(delta_bias);
  return selective_scan(args, order, Rows::kPosition).y;
}

torch::Tensor TwoWayMambaImpl::forward(const torch::Tensor& x, const ScanOrder& order) {
  check_shape(kTwoWayMambaWho, x, "x", {-1, order.num_tokens, options.d_model}, "B, T, d_model");
  SERPENTINE_CHECK(order.num_branches == 1, kTwoWayMambaWho, "the order must have one branch, got ",
                   order.num_branches);
  const auto xz = in_proj(x);
  const auto halves = xz.chunk(2, -1);  // [B, T, D]: what is scanned, and its gate
  torch::Tensor gated;
  if (way == SecondWay::kTokens) {
    const ScanOrder both = stack({order, reversed(order)}, 2 * order.num_visits());
    gated = scan(halves[0], both, {&ahead_, &other_}) * torch::silu(halves[1]);
  } else {
    gated = scan(halves[0], order, {&ahead_}) * torch::silu(halves[1]);
  }
  if (way == SecondWay::kChannels) {
    const auto turned = scan(halves[1].flip(-1), order, {&other_});
    gated = gated + turned.flip(-1) * torch::silu(halves[0]);
  }
  return out_proj(gated);
}

torch::Tensor TwoWayMambaImpl::prefill(const torch::Tensor&, MixerState&) {
  TORCH_CHECK(false, kTwoWayMambaWho,
              ": it reads tokens in both directions and cannot go on from a state");
}

torch::Tensor TwoWayMambaImpl::step(const torch::Tensor& x, MixerState& state) {
  return prefill(x, state);
}

MixerState TwoWayMambaImpl::empty_state(int64_t) const { return {}; }

}  // namespace serpentine
