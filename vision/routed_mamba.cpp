#include "vision/routed_mamba.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/causal_conv1d.h"
#include "core/ops/selective_scan.h"
#include "vision/image_scan.h"

namespace serpentine {
namespace {

constexpr const char* kRoutedMambaWho = "RoutedMamba";

torch::Tensor joined(const std::vector<torch::Tensor>& parts) {
  return parts.size() == 1 ? parts[0] : torch::cat(parts, 1);
}

void set_log_states(torch::Tensor& A_log) {
  A_log.copy_(torch::arange(1, A_log.size(1) + 1, A_log.options().requires_grad(false))
                  .log()
                  .expand_as(A_log));
}

}  // namespace

RoutedMambaImpl::RoutedMambaImpl(const RoutedMambaOptions& chosen, int64_t branches)
    : options(chosen) {
  const MambaOptions& mamba = options.mamba;
  const int64_t inner = mamba.inner();
  SERPENTINE_CHECK(mamba.d_model >= 1 && mamba.d_state >= 1 && inner >= 1, kRoutedMambaWho,
                   "d_model, d_state and int(expand * d_model) must be at least 1, got ",
                   mamba.d_model, ", ", mamba.d_state, " and ", inner);
  SERPENTINE_CHECK(options.directions == Directions::kOwn || branches == 1, kRoutedMambaWho,
                   "with shared directions (v1) an order must have one branch, whose reverse is "
                   "added; got ",
                   branches);
  using torch::nn::LinearOptions;
  in_proj = register_module(
      "in_proj", torch::nn::Linear(LinearOptions(mamba.d_model, 2 * inner).bias(mamba.bias)));
  for (int64_t k = 0; k < branches; ++k) branches_.push_back(add_branch(k));
  if (options.directions == Directions::kShared)
    A_b_log_ = register_parameter("A_b_log", torch::empty({inner, mamba.d_state}));
  out_proj = register_module(
      "out_proj", torch::nn::Linear(LinearOptions(inner, mamba.d_model).bias(mamba.bias)));
  if (options.channel_gate) {
    constexpr int64_t kReduction = 8;
    attn_ = register_module("attn", ChannelGate(inner, inner / kReduction));
  }
  if (options.layer_scale != 0)
    gamma_ = register_parameter("gamma", torch::full({mamba.d_model}, options.layer_scale));
  reset();
}

RoutedMambaImpl::Branch RoutedMambaImpl::add_branch(int64_t number) {
  using torch::nn::LinearOptions;
  const MambaOptions& mamba = options.mamba;
  const int64_t inner = mamba.inner(), rank = mamba.rank(), states = mamba.d_state;
  std::string suffix, A_name = "A_log";
  if (options.naming == BranchNames::kNumbered) {
    suffix = "_" + std::to_string(number);
    A_name = "A_log" + suffix;
  } else if (number > 0) {
    suffix = number == 1 ? "_b" : "_" + std::to_string(number);
    A_name = "A" + suffix + "_log";
  }
  Branch branch;
  branch.conv = register_module(
      "conv1d" + suffix, torch::nn::Conv1d(torch::nn::Conv1dOptions(inner, inner, mamba.d_conv)
                                               .groups(inner)
                                               .padding(mamba.d_conv - 1)
                                               .bias(mamba.conv_bias)));
  branch.x_proj = register_module(
      "x_proj" + suffix, torch::nn::Linear(LinearOptions(inner, rank + 2 * states).bias(false)));
  branch.dt_proj =
      register_module("dt_proj" + suffix, torch::nn::Linear(LinearOptions(rank, inner).bias(true)));
  branch.A_log = register_parameter(A_name, torch::empty({inner, states}));
  branch.D = register_parameter("D" + suffix, torch::empty({inner}));
  return branch;
}

void RoutedMambaImpl::reset() {
  const torch::NoGradGuard no_grad;
  const MambaOptions& mamba = options.mamba;
  for (auto* linear : {&in_proj, &out_proj}) (*linear)->reset_parameters();
  for (Branch& branch : branches_) {
    branch.conv->reset_parameters();
    branch.x_proj->reset_parameters();
    branch.dt_proj->reset_parameters();
    branch.dt_proj->bias.zero_();
    set_log_states(branch.A_log);
    branch.D.fill_(1);
  }
  if (A_b_log_.defined()) set_log_states(A_b_log_);

  // softplus(bias) is the initial step size, log-uniform between its bounds
  const double bound = mamba.dt_scale / std::sqrt(static_cast<double>(mamba.rank()));
  const size_t count = options.naming == BranchNames::kVim ? 1 : branches_.size();
  for (size_t k = 0; k < count; ++k) {
    branches_[k].dt_proj->weight.uniform_(-bound, bound);
    const auto dt = torch::empty({mamba.inner()})
                        .uniform_(std::log(mamba.dt_min), std::log(mamba.dt_max))
                        .exp()
                        .clamp_min(mamba.dt_init_floor);
    branches_[k].dt_proj->bias.copy_(dt + torch::log(-torch::expm1(-dt)));
  }
}

// x: [B, T, D] -> [B, T, D] ([B, T, K D] if concatenated), before the gate
torch::Tensor RoutedMambaImpl::scan(const torch::Tensor& x, const ScanOrder& order,
                                    Merge merge) const {
  const MambaOptions& mamba = options.mamba;
  const auto wide = x.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  std::vector<torch::Tensor> weight, bias, A, D, delta_bias;
  for (const Branch& branch : branches_) {
    weight.push_back(branch.conv->weight.squeeze(1));
    if (branch.conv->bias.defined()) bias.push_back(branch.conv->bias);
    A.push_back(-branch.A_log.to(wide).exp());
    D.push_back(branch.D.to(wide));
    delta_bias.push_back(branch.dt_proj->bias.to(wide));
  }
  CausalConv1dArgs conv;
  conv.x = x;
  conv.weight = torch::stack(weight);
  if (!bias.empty()) conv.bias = torch::stack(bias);
  conv.silu = true;
  const auto u = causal_conv1d(conv, order).y;  // [B, P, D], branch after branch

  std::vector<torch::Tensor> delta, B, C;
  const auto runs = u.split_with_sizes(branch_sizes(order), 1);
  for (size_t k = 0; k < branches_.size(); ++k) {
    const auto parts = torch::linear(runs[k], branches_[k].x_proj->weight)
                           .split_with_sizes({mamba.rank(), mamba.d_state, mamba.d_state}, -1);
    delta.push_back(torch::linear(parts[0], branches_[k].dt_proj->weight).to(u.scalar_type()));
    B.push_back(parts[1].to(u.scalar_type()));
    C.push_back(parts[2].to(u.scalar_type()));
  }
  SelectiveScanArgs args;
  args.u = u;
  args.delta = joined(delta);
  args.B = joined(B);
  args.C = joined(C);
  if (!A_b_log_.defined()) {
    args.A = torch::stack(A);
    args.D = torch::stack(D);
    args.delta_bias = torch::stack(delta_bias);
    return selective_scan(args, order, Rows::kPosition, merge).y;
  }

  // as published, the way back reads what the way there made of the convolution
  const auto twice = [](torch::Tensor& rows) { rows = torch::cat({rows, rows.flip(1)}, 1); };
  for (auto* rows : {&args.u, &args.delta, &args.B, &args.C}) twice(*rows);
  args.A = torch::stack({A[0], -A_b_log_.to(wide).exp()});
  args.D = torch::stack({D[0], D[0]});
  args.delta_bias = torch::stack({delta_bias[0], delta_bias[0]});
  const auto both = stack({order, reversed(order)}, 2 * order.num_visits());
  return selective_scan(args, both, Rows::kPosition, Merge::kSum).y;
}

torch::Tensor RoutedMambaImpl::forward(const torch::Tensor& x, const ScanOrder& order) {
  check_shape(kRoutedMambaWho, x, "x", {-1, order.num_tokens, options.mamba.d_model},
              "B, T, d_model");
  SERPENTINE_CHECK(order.num_branches == static_cast<int64_t>(branches_.size()), kRoutedMambaWho,
                   "the order must have ", branches_.size(), " branches, got ", order.num_branches);
  if (trace != nullptr) (*trace)["mixer_in"] = x;
  const auto halves = in_proj(x).chunk(2, -1);  // [B, T, D]: what is scanned, and its gate
  const auto gate = torch::silu(halves[1]);
  torch::Tensor mixed;
  if (attn_) {
    mixed = gated_sum(scan(halves[0], order, Merge::kConcat), gate);
  } else {
    mixed = scan(halves[0], order, options.mean ? Merge::kMean : Merge::kSum) * gate;
  }
  const auto y = out_proj(mixed);
  return gamma_.defined() ? y * gamma_ : y;
}

// y: [B, T, K D], gate: [B, T, D] -> [B, T, D]
torch::Tensor RoutedMambaImpl::gated_sum(const torch::Tensor& y, const torch::Tensor& gate) {
  const auto count = static_cast<int64_t>(branches_.size());
  SERPENTINE_CHECK(y.size(-1) == count * gate.size(-1), kRoutedMambaWho,
                   "with a channel gate every branch must visit each token once");
  torch::Tensor sum;
  const auto outputs = y.chunk(count, -1);
  for (int64_t k = 0; k < count; ++k) {
    auto one = outputs[static_cast<size_t>(k)] * gate;
    if (rearrange) one = rearrange(one, k);
    one = attn_(one);
    sum = sum.defined() ? sum + one : one;
  }
  return sum;
}

torch::Tensor RoutedMambaImpl::prefill(const torch::Tensor&, MixerState&) {
  TORCH_CHECK(false, kRoutedMambaWho,
              ": it reads tokens in several orders and cannot go on from a state");
}

torch::Tensor RoutedMambaImpl::step(const torch::Tensor& x, MixerState& state) {
  return prefill(x, state);
}

MixerState RoutedMambaImpl::empty_state(int64_t) const { return {}; }

}  // namespace serpentine
