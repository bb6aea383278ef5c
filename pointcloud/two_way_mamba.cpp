#include "pointcloud/two_way_mamba.h"

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/gate.h"

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
  ahead_ = add_mamba_branch(*this, options, "", "A_log");
  other_ = add_mamba_branch(*this, options, "_b", "A_b_log");
  out_proj = register_module(
      "out_proj", torch::nn::Linear(LinearOptions(inner, options.d_model).bias(options.bias)));
  reset();
  if (way != SecondWay::kUnused) return;
  for (const torch::nn::Module* module : {static_cast<torch::nn::Module*>(other_.conv.get()),
                                          static_cast<torch::nn::Module*>(other_.x_proj.get()),
                                          static_cast<torch::nn::Module*>(other_.dt_proj.get())}) {
    for (auto& parameter : module->parameters()) parameter.set_requires_grad(false);
  }
  other_.A_log.set_requires_grad(false);
  other_.D.set_requires_grad(false);
}

void TwoWayMambaImpl::reset() {
  for (auto* linear : {&in_proj, &out_proj}) (*linear)->reset_parameters();
  for (MambaBranch* branch : {&ahead_, &other_}) branch->reset();
  ahead_.reset_steps(options);
}

// x: [B, T, D] -> [B, T, D], the sum over the order's branches, before the gate
torch::Tensor TwoWayMambaImpl::scan(const torch::Tensor& x, const ScanOrder& order,
                                    at::ArrayRef<const MambaBranch*> branches) const {
  return selective_scan(branch_scan_args(branches, options, x, order), order, Rows::kPosition).y;
}

torch::Tensor TwoWayMambaImpl::forward(const torch::Tensor& x, const ScanOrder& order) {
  check_shape(kTwoWayMambaWho, x, "x", {-1, order.num_tokens, options.d_model}, "B, T, d_model");
  SERPENTINE_CHECK(order.num_branches == 1, kTwoWayMambaWho, "the order must have one branch, got ",
                   order.num_branches);
  if (way != SecondWay::kChannels && takes_mamba_mixer(x)) {
    if (way == SecondWay::kUnused)
      return branch_mixer({&ahead_}, options, in_proj, out_proj, x, order, {});
    const ScanOrder both = stack({order, reversed(order)}, 2 * order.num_visits());
    return branch_mixer({&ahead_, &other_}, options, in_proj, out_proj, x, both, {});
  }
  const auto xz = in_proj(x);
  const auto halves = xz.chunk(2, -1);  // [B, T, D]: what is scanned, and its gate
  torch::Tensor gated;
  if (way == SecondWay::kTokens) {
    const ScanOrder both = stack({order, reversed(order)}, 2 * order.num_visits());
    gated = silu_gate(scan(halves[0], both, {&ahead_, &other_}), halves[1]);
  } else {
    gated = silu_gate(scan(halves[0], order, {&ahead_}), halves[1]);
  }
  if (way == SecondWay::kChannels) {
    const auto turned = scan(halves[1].flip(-1), order, {&other_});
    gated = gated + silu_gate(turned.flip(-1), halves[0]);
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
