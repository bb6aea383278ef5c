#include "segmentation/branch_mamba.h"

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/gate.h"

namespace serpentine {
namespace {

constexpr const char* kBranchMambaWho = "BranchMamba";

std::string suffix_of(int64_t branch) {
  if (branch == 0) return "";
  if (branch == 1) return "_b";
  return branch == 2 ? "_s" : "_" + std::to_string(branch);
}

}  // namespace

BranchMambaImpl::BranchMambaImpl(const MambaOptions& chosen, int64_t branches) : options(chosen) {
  using torch::nn::LinearOptions;
  const int64_t inner = options.inner(), states = options.d_state;
  SERPENTINE_CHECK(options.d_model >= 1 && states >= 1 && inner >= 1 && branches >= 1,
                   kBranchMambaWho,
                   "d_model, d_state, int(expand * d_model) and branches must be at least 1, got ",
                   options.d_model, ", ", states, ", ", inner, " and ", branches);
  in_proj = register_module(
      "in_proj", torch::nn::Linear(LinearOptions(options.d_model, 2 * inner).bias(options.bias)));
  for (int64_t k = 0; k < branches; ++k) {
    const auto suffix = suffix_of(k);
    branches_.push_back(add_mamba_branch(*this, options, suffix, "A" + suffix + "_log"));
  }
  out_proj = register_module(
      "out_proj", torch::nn::Linear(LinearOptions(inner, options.d_model).bias(options.bias)));
  reset();
}

void BranchMambaImpl::reset() {
  for (auto* linear : {&in_proj, &out_proj}) (*linear)->reset_parameters();
  for (MambaBranch& branch : branches_) {
    branch.reset();
    branch.reset_steps(options);
  }
}

torch::Tensor BranchMambaImpl::forward(const torch::Tensor& x, const ScanOrder& order) {
  check_shape(kBranchMambaWho, x, "x", {-1, order.num_tokens, options.d_model}, "B, T, d_model");
  SERPENTINE_CHECK(order.num_branches == static_cast<int64_t>(branches_.size()) &&
                       order.num_positions() % order.num_branches == 0,
                   kBranchMambaWho, "the order must have ", branches_.size(),
                   " branches of one length, got ", order.num_branches, " over ",
                   order.num_positions(), " positions");
  std::vector<const MambaBranch*> branches;
  for (const MambaBranch& branch : branches_) branches.push_back(&branch);
  if (takes_mamba_mixer(x)) return branch_mixer(branches, options, in_proj, out_proj, x, order, {});
  const auto halves = in_proj(x).chunk(2, -1);  // [B, T, D]: what is scanned, and its gate
  // the sum over the order's branches, before the gate
  const auto args = branch_scan_args(branches, options, halves[0], order);
  const auto sum = selective_scan(args, order, Rows::kPosition).y;
  return out_proj(silu_gate(sum, halves[1]));
}

}  // namespace serpentine
