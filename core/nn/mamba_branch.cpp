#include "core/nn/mamba_branch.h"

#include <cmath>

#include <torch/torch.h>

#include "core/ops/causal_conv1d.h"

namespace serpentine {

MambaBranch add_mamba_branch(torch::nn::Module& owner, const MambaOptions& options,
                             const std::string& suffix, const std::string& a_name) {
  using torch::nn::LinearOptions;
  const int64_t inner = options.inner(), rank = options.rank(), states = options.d_state;
  MambaBranch branch;
  branch.conv = owner.register_module(
      "conv1d" + suffix, torch::nn::Conv1d(torch::nn::Conv1dOptions(inner, inner, options.d_conv)
                                               .groups(inner)
                                               .padding(options.d_conv - 1)
                                               .bias(options.conv_bias)));
  branch.x_proj = owner.register_module(
      "x_proj" + suffix, torch::nn::Linear(LinearOptions(inner, rank + 2 * states).bias(false)));
  branch.dt_proj = owner.register_module("dt_proj" + suffix,
                                         torch::nn::Linear(LinearOptions(rank, inner).bias(true)));
  branch.A_log = owner.register_parameter(a_name, torch::empty({inner, states}));
  branch.D = owner.register_parameter("D" + suffix, torch::empty({inner}));
  return branch;
}

void MambaBranch::reset() {
  const torch::NoGradGuard no_grad;
  conv->reset_parameters();
  x_proj->reset_parameters();
  dt_proj->reset_parameters();
  A_log.copy_(torch::arange(1, A_log.size(1) + 1, A_log.options().requires_grad(false))
                  .log()
                  .expand_as(A_log));
  D.fill_(1);
}

void MambaBranch::reset_steps(const MambaOptions& options) {
  const torch::NoGradGuard no_grad;
  const double bound = options.dt_scale / std::sqrt(static_cast<double>(options.rank()));
  dt_proj->weight.uniform_(-bound, bound);
  // softplus(bias) is the initial step size
  const auto dt = torch::empty({options.inner()})
                      .uniform_(std::log(options.dt_min), std::log(options.dt_max))
                      .exp()
                      .clamp_min(options.dt_init_floor);
  dt_proj->bias.copy_(dt + torch::log(-torch::expm1(-dt)));
}

SelectiveScanArgs branch_scan_args(at::ArrayRef<const MambaBranch*> branches,
                                   const MambaOptions& options, const torch::Tensor& x,
                                   const ScanOrder& order, at::IntArrayRef sizes) {
  std::vector<torch::Tensor> weight, bias, A, D, delta_bias;
  const auto wide = x.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  for (const MambaBranch* branch : branches) {
    weight.push_back(branch->conv->weight.squeeze(1));
    if (branch->conv->bias.defined()) bias.push_back(branch->conv->bias);
    A.push_back(-branch->A_log.to(wide).exp());
    D.push_back(branch->D.to(wide));
    delta_bias.push_back(branch->dt_proj->bias.to(wide));
  }
  CausalConv1dArgs conv;
  conv.x = x;
  conv.weight = torch::stack(weight);
  if (!bias.empty()) conv.bias = torch::stack(bias);
  conv.silu = true;
  SelectiveScanArgs args;
  args.u = causal_conv1d(conv, order).y;  // [B, P, D], branch after branch

  std::vector<torch::Tensor> delta, B, C;
  const auto runs = sizes.empty() ? args.u.chunk(static_cast<int64_t>(branches.size()), 1)
                                  : args.u.split_with_sizes(sizes, 1);
  for (size_t k = 0; k < branches.size(); ++k) {
    const auto parts =
        torch::linear(runs[k], branches[k]->x_proj->weight)
            .split_with_sizes({options.rank(), options.d_state, options.d_state}, -1);
    const auto type = args.u.scalar_type();
    delta.push_back(torch::linear(parts[0], branches[k]->dt_proj->weight).to(type));
    B.push_back(parts[1].to(type));
    C.push_back(parts[2].to(type));
  }
  const auto joined = [](const std::vector<torch::Tensor>& parts) {
    return parts.size() == 1 ? parts[0] : torch::cat(parts, 1);
  };
  args.delta = joined(delta);
  args.A = torch::stack(A);
  args.B = joined(B);
  args.C = joined(C);
  args.D = torch::stack(D);
  args.delta_bias = torch::stack(delta_bias);
  return args;
}

torch::Tensor branch_mixer(at::ArrayRef<const MambaBranch*> branches, const MambaOptions& options,
                           const torch::nn::Linear& in_proj, const torch::nn::Linear& out_proj,
                           const torch::Tensor& x, const ScanOrder& order,
                           const MambaMixerOptions& passes) {
  const auto stacked = [&](const auto& of) {
    std::vector<torch::Tensor> all;
    for (const MambaBranch* branch : branches) all.push_back(of(*branch));
    if (!all[0].defined()) return torch::Tensor();
    return all.size() == 1 ? all[0].unsqueeze(0) : torch::stack(all);
  };
  MambaMixerArgs args;
  args.h = x;
  args.in_proj = in_proj->weight;
  args.in_bias = in_proj->bias;
  args.conv = stacked([](const MambaBranch& of) { return of.conv->weight.squeeze(1); });
  args.conv_bias = stacked([](const MambaBranch& of) { return of.conv->bias; });
  args.x_proj = stacked([](const MambaBranch& of) { return of.x_proj->weight; });
  args.dt_proj = stacked([](const MambaBranch& of) { return of.dt_proj->weight; });
  args.dt_bias = stacked([](const MambaBranch& of) { return of.dt_proj->bias; });
  args.A_log = stacked([](const MambaBranch& of) { return of.A_log; });
  args.D = stacked([](const MambaBranch& of) { return of.D; });
  args.out_proj = out_proj->weight;
  args.out_bias = out_proj->bias;
  MambaMixerOptions chosen = passes;
  chosen.keep = options.kept(x.device());
  return mamba_mixer(args, order, chosen);
}

}  // namespace serpentine
