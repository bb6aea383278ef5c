#include "segmentation/branch_mamba.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/causal_conv1d.h"
#include "core/ops/selective_scan.h"

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
  const int64_t inner = options.inner(), rank = options.rank(), states = options.d_state;
  SERPENTINE_CHECK(options.d_model >= 1 && states >= 1 && inner >= 1 && branches >= 1,
                   kBranchMambaWho,
                   "d_model, d_state, int(expand * d_model) and branches must be at least 1, got ",
                   options.d_model, ", ", states, ", ", inner, " and ", branches);
  in_proj = register_module(
      "in_proj", torch::nn::Linear(LinearOptions(options.d_model, 2 * inner).bias(options.bias)));
  for (int64_t k = 0; k < branches; ++k) {
    const auto suffix = suffix_of(k);
    Set set;
    set.conv = register_module(
        "conv1d" + suffix, torch::nn::Conv1d(torch::nn::Conv1dOptions(inner, inner, options.d_conv)
                                                 .groups(inner)
                                                 .padding(options.d_conv - 1)
                                                 .bias(options.conv_bias)));
    set.x_proj = register_module(
        "x_proj" + suffix, torch::nn::Linear(LinearOptions(inner, rank + 2 * states).bias(false)));
    set.dt_proj = register_module("dt_proj" + suffix,
                                  torch::nn::Linear(LinearOptions(rank, inner).bias(true)));
    set.a_log = register_parameter("A" + suffix + "_log", torch::empty({inner, states}));
    set.D = register_parameter("D" + suffix, torch::empty({inner}));
    sets_.push_back(set);
  }
  out_proj = register_module(
      "out_proj", torch::nn::Linear(LinearOptions(inner, options.d_model).bias(options.bias)));
  reset();
}

void BranchMambaImpl::reset() {
  const torch::NoGradGuard no_grad;
  for (auto* linear : {&in_proj, &out_proj}) (*linear)->reset_parameters();
  const double bound = options.dt_scale / std::sqrt(static_cast<double>(options.rank()));
  for (Set& set : sets_) {
    set.conv->reset_parameters();
    set.x_proj->reset_parameters();
    set.dt_proj->weight.uniform_(-bound, bound);
    const auto dt = torch::empty({options.inner()})
                        .uniform_(std::log(options.dt_min), std::log(options.dt_max))
                        .exp()
                        .clamp_min(options.dt_init_floor);
    set.dt_proj->bias.copy_(dt + torch::log(-torch::expm1(-dt)));
    set.a_log.copy_(
        torch::arange(1, options.d_state + 1, torch::kFloat).log().expand_as(set.a_log));
    set.D.fill_(1);
  }
}

// x: [B, T, D] -> [B, T, D], the sum over the order's branches, before the gate
torch::Tensor BranchMambaImpl::scan(const torch::Tensor& x, const ScanOrder& order) const {
  std::vector<torch::Tensor> weight, bias, A, D, delta_bias;
  const auto wide = x.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  for (const Set& set : sets_) {
    weight.push_back(set.conv->weight.squeeze(1));
    if (set.conv->bias.defined()) bias.push_back(set.conv->bias);
    A.push_back(-set.a_log.to(wide).exp());
    D.push_back(set.D.to(wide));
    delta_bias.push_back(set.dt_proj->bias.to(wide));
  }
  CausalConv1dArgs conv;
  conv.x = x;
  conv.weight = torch::stack(weight);
  if (!bias.empty()) conv.bias = torch::stack(bias);
  conv.silu = true;
  const auto u = causal_conv1d(conv, order).y;  // [B, P, D], branch after branch

  std::vector<torch::Tensor> delta, B, C;
  const auto branches = static_cast<int64_t>(sets_.size());
  const auto ways = u.chunk(branches, 1);
  for (size_t k = 0; k < sets_.size(); ++k) {
    const auto parts =
        torch::linear(ways[k], sets_[k].x_proj->weight)
            .split_with_sizes({options.rank(), options.d_state, options.d_state}, -1);
    delta.push_back(torch::linear(parts[0], sets_[k].dt_proj->weight).to(u.scalar_type()));
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

torch::Tensor BranchMambaImpl::forward(const torch::Tensor& x, const ScanOrder& order) {
  check_shape(kBranchMambaWho, x, "x", {-1, order.num_tokens, options.d_model}, "B, T, d_model");
  SERPENTINE_CHECK(order.num_branches == static_cast<int64_t>(sets_.size()) &&
                       order.num_positions() % order.num_branches == 0,
                   kBranchMambaWho, "the order must have ", sets_.size(),
                   " branches of one length, got ", order.num_branches, " over ",
                   order.num_positions(), " positions");
  const auto halves = in_proj(x).chunk(2, -1);  // [B, T, D]: what is scanned, and its gate
  return out_proj(scan(halves[0], order) * torch::silu(halves[1]));
}

}  // namespace serpentine
