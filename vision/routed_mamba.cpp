#include "vision/routed_mamba.h"

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/branch_product.h"
#include "core/ops/gate.h"

namespace serpentine {
namespace {

constexpr const char* kRoutedMambaWho = "RoutedMamba";

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

MambaBranch RoutedMambaImpl::add_branch(int64_t number) {
  const std::string digits = "_" + std::to_string(number);
  if (options.naming == BranchNames::kNumbered)
    return add_mamba_branch(*this, options.mamba, digits, "A_log" + digits);
  const std::string suffix = number == 0 ? "" : number == 1 ? "_b" : digits;
  return add_mamba_branch(*this, options.mamba, suffix, "A" + suffix + "_log");
}

void RoutedMambaImpl::reset() {
  const torch::NoGradGuard no_grad;
  for (auto* linear : {&in_proj, &out_proj}) (*linear)->reset_parameters();
  for (MambaBranch& branch : branches_) {
    branch.reset();
    branch.dt_proj->bias.zero_();
  }
  if (A_b_log_.defined()) A_b_log_.copy_(branches_[0].A_log);
  const size_t count = options.naming == BranchNames::kVim ? 1 : branches_.size();
  for (size_t k = 0; k < count; ++k) branches_[k].reset_steps(options.mamba);
}

// x: [B, T, D] -> [B, T, D] ([B, T, K D] if concatenated), before the gate
torch::Tensor RoutedMambaImpl::scan(const torch::Tensor& x, const ScanOrder& order,
                                    Merge merge) const {
  std::vector<const MambaBranch*> branches;
  for (const MambaBranch& branch : branches_) branches.push_back(&branch);
  auto args = branch_scan_args(branches, options.mamba, x, order, branch_sizes(order));
  if (!A_b_log_.defined()) return selective_scan(args, order, Rows::kPosition, merge).y;

  // as published, the way back reads what the way there made of the convolution
  const auto twice = [](torch::Tensor& rows) { rows = torch::cat({rows, rows.flip(1)}, 1); };
  for (auto* rows : {&args.u, &args.delta, &args.B, &args.C}) twice(*rows);
  args.A = torch::cat({args.A, -A_b_log_.to(args.A.scalar_type()).exp().unsqueeze(0)});
  args.D = torch::cat({args.D, args.D});
  args.delta_bias = torch::cat({args.delta_bias, args.delta_bias});
  const auto both = stack({order, reversed(order)}, 2 * order.num_visits());
  return selective_scan(args, both, Rows::kPosition, Merge::kSum).y;
}

torch::Tensor RoutedMambaImpl::forward(const torch::Tensor& x, const ScanOrder& order) {
  check_shape(kRoutedMambaWho, x, "x", {-1, order.num_tokens, options.mamba.d_model},
              "B, T, d_model");
  SERPENTINE_CHECK(order.num_branches == static_cast<int64_t>(branches_.size()), kRoutedMambaWho,
                   "the order must have ", branches_.size(), " branches, got ", order.num_branches);
  if (trace != nullptr) (*trace)["mixer_in"] = x;
  if (!attn_ && !A_b_log_.defined() && takes_mamba_mixer(x)) {
    std::vector<const MambaBranch*> branches;
    for (const MambaBranch& branch : branches_) branches.push_back(&branch);
    MambaMixerOptions passes;
    passes.sizes = branch_sizes(order);
    passes.merge = options.mean ? Merge::kMean : Merge::kSum;
    const auto y = branch_mixer(branches, options.mamba, in_proj, out_proj, x, order, passes);
    return gamma_.defined() ? y * gamma_ : y;
  }
  const auto halves = in_proj(x).chunk(2, -1);  // [B, T, D]: what is scanned, and its gate
  torch::Tensor mixed;
  if (attn_) {
    mixed = gated_sum(scan(halves[0], order, Merge::kConcat), torch::silu(halves[1]));
  } else {
    mixed = silu_gate(scan(halves[0], order, options.mean ? Merge::kMean : Merge::kSum), halves[1]);
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
