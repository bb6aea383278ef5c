#include "pathology/bag_mamba.h"

#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/recompute.h"
#include "core/ops/causal_conv1d.h"
#include "core/ops/gate.h"
#include "core/ops/selective_scan.h"

namespace serpentine {
namespace {

using Tensors = std::vector<torch::Tensor>;

// The weights of a group of w inner channels, in this sequence; K branches stacked in front.
enum Weight { kInX, kInZ, kConv, kConvBias, kXProj, kDt, kDtBias, kALog, kD, kOut, kWeights };

/// Where the positions of each branch end.
std::vector<int64_t> branch_sizes(const ScanOrder& order) {
  const auto host = [](const torch::Tensor& of) {
    return of.to(torch::kCPU, torch::kLong).contiguous();
  };
  const torch::Tensor offsets = host(order.offsets), branch = host(order.branch);
  std::vector<int64_t> sizes(static_cast<size_t>(order.num_branches), 0);
  for (int64_t s = 0; s < branch.size(0); ++s) {
    sizes[static_cast<size_t>(branch.const_data_ptr<int64_t>()[s])] +=
        offsets.const_data_ptr<int64_t>()[s + 1] - offsets.const_data_ptr<int64_t>()[s];
  }
  return sizes;
}

/// One traversal through every branch; the tensors of a call lie in vectors, so that a call can be
/// made again in the backward pass.
struct Traversal {
  ScanOrder order;
  std::vector<int64_t> sizes;  // positions of each branch
  int64_t rank, states;

  // x: [B, T, d_model] -> [B, P, w]
  torch::Tensor convolved(const torch::Tensor& x, const Tensors& weight) const {
    CausalConv1dArgs conv;
    conv.x = torch::linear(x, weight[kInX]);
    conv.weight = weight[kConv];
    conv.bias = weight[kConvBias];
    conv.silu = true;
    return causal_conv1d(conv, order).y;
  }

  /// Each branch's rows through its own matrix [K, out, in].
  torch::Tensor each_branch(const torch::Tensor& rows, const torch::Tensor& matrix) const {
    if (sizes.size() == 1) return torch::linear(rows, matrix[0]);
    const auto parts = rows.split_with_sizes(sizes, 1);
    Tensors made;
    for (size_t k = 0; k < parts.size(); ++k)
      made.push_back(torch::linear(parts[k], matrix[static_cast<int64_t>(k)]));
    return torch::cat(made, 1);
  }

  // u: [B, P, w], steps: [B, P, R + 2 N] -> [B, T, d_model]
  torch::Tensor scanned(const torch::Tensor& x, const torch::Tensor& u, const torch::Tensor& steps,
                        const Tensors& weight) const {
    const auto parts = steps.split_with_sizes({rank, states, states}, -1);
    const auto type = u.scalar_type();
    const auto wide = type == torch::kDouble ? torch::kDouble : torch::kFloat;
    SelectiveScanArgs args;
    args.u = u;
    args.delta = each_branch(parts[0], weight[kDt]).to(type);
    args.A = -weight[kALog].to(wide).exp();
    args.B = parts[1].to(type);
    args.C = parts[2].to(type);
    args.D = weight[kD].to(wide);
    args.delta_bias = weight[kDtBias].to(wide);
    const auto y = selective_scan(args, order, Rows::kPosition).y;
    return torch::linear(silu_gate(y, torch::linear(x, weight[kInZ])), weight[kOut]);
  }
};

}  // namespace

BagMambaImpl::BagMambaImpl(const MambaOptions& chosen, int64_t branches) : options(chosen) {
  using torch::nn::LinearOptions;
  const int64_t inner = options.inner(), rank = options.rank(), states = options.d_state;
  SERPENTINE_CHECK(branches >= 1 && branches <= 25, "BagMamba", "1 to 25 branches, got ", branches);
  in_proj_ = register_module(
      "in_proj", torch::nn::Linear(LinearOptions(options.d_model, 2 * inner).bias(false)));
  out_proj_ = register_module("out_proj",
                              torch::nn::Linear(LinearOptions(inner, options.d_model).bias(false)));
  for (int64_t k = 0; k < branches; ++k) {
    const std::string letter = k == 0 ? "" : std::string("_") + static_cast<char>('a' + k);
    Branch branch;
    branch.conv = register_module(
        "conv1d" + letter, torch::nn::Conv1d(torch::nn::Conv1dOptions(inner, inner, options.d_conv)
                                                 .groups(inner)
                                                 .padding(options.d_conv - 1)));
    branch.x_proj = register_module(
        "x_proj" + letter, torch::nn::Linear(LinearOptions(inner, rank + 2 * states).bias(false)));
    branch.dt_proj = register_module("dt_proj" + letter, torch::nn::Linear(rank, inner));
    branch.a_log =
        register_parameter(k == 0 ? "A_log" : "A" + letter + "_log",
                           torch::arange(1, states + 1, torch::kFloat).log().repeat({inner, 1}));
    branch.D = register_parameter("D" + letter, torch::ones({inner}));
    branches_.push_back(branch);
  }
}

std::vector<torch::Tensor> BagMambaImpl::weights(int64_t first, int64_t end) const {
  std::vector<Tensors> stacked(kWeights);
  for (const Branch& branch : branches_) {
    stacked[kConv].push_back(branch.conv->weight.squeeze(1).slice(0, first, end));
    stacked[kConvBias].push_back(branch.conv->bias.slice(0, first, end));
    stacked[kXProj].push_back(branch.x_proj->weight.slice(1, first, end));
    stacked[kDt].push_back(branch.dt_proj->weight.slice(0, first, end));
    stacked[kDtBias].push_back(branch.dt_proj->bias.slice(0, first, end));
    stacked[kALog].push_back(branch.a_log.slice(0, first, end));
    stacked[kD].push_back(branch.D.slice(0, first, end));
  }
  Tensors all(kWeights);
  for (size_t w = 0; w < kWeights; ++w) {
    if (!stacked[w].empty()) all[w] = torch::stack(stacked[w]);
  }
  const int64_t inner = options.inner();
  all[kInX] = in_proj_->weight.slice(0, first, end);
  all[kInZ] = in_proj_->weight.slice(0, inner + first, inner + end);
  all[kOut] = out_proj_->weight.slice(1, first, end);
  return all;
}

int64_t BagMambaImpl::bytes_of_tile() const {
  // floats of a branch's channel: convolution, delta, scan and their gradients, and a state each
  // few positions; of a channel: what enters, the gate and their products
  const auto branches = static_cast<int64_t>(branches_.size());
  return 4 * options.inner() * (8 * branches + 8);
}

int64_t BagMambaImpl::steps_of_tile() const {
  return static_cast<int64_t>(branches_.size()) * (options.rank() + 2 * options.d_state);
}

torch::Tensor BagMambaImpl::forward(const torch::Tensor& x, const ScanOrder& order, int64_t parts) {
  check_shape("BagMamba", x, "x", {-1, order.num_tokens, options.d_model}, "B, T, d_model");
  SERPENTINE_CHECK(order.num_branches == static_cast<int64_t>(branches_.size()), "BagMamba",
                   "the order has ", order.num_branches, " branches, the layer ", branches_.size());
  const Traversal traversal{order, branch_sizes(order), options.rank(), options.d_state};
  const int64_t inner = options.inner();
  if (parts <= 1) {
    const Tensors weight = weights(0, inner);
    const auto u = traversal.convolved(x, weight);
    return traversal.scanned(x, u, traversal.each_branch(u, weight[kXProj]), weight);
  }

  const int64_t width = (inner + parts - 1) / parts;
  torch::Tensor steps, out;
  const auto add = [](torch::Tensor& sum, const torch::Tensor& part) {
    sum = sum.defined() ? sum.add_(part) : part;  // nothing has saved the sum
  };
  for (int64_t first = 0; first < inner; first += width) {
    Tensors inputs = weights(first, std::min(first + width, inner));
    inputs.push_back(x);
    add(steps, recomputed(
                   [traversal](const Tensors& in) {
                     return traversal.each_branch(traversal.convolved(in.back(), in), in[kXProj]);
                   },
                   inputs));
  }
  for (int64_t first = 0; first < inner; first += width) {
    Tensors inputs = weights(first, std::min(first + width, inner));
    inputs.insert(inputs.end(), {steps, x});
    add(out, recomputed(
                 [traversal](const Tensors& in) {
                   const auto u = traversal.convolved(in.back(), in);
                   return traversal.scanned(in.back(), u, in[kWeights], in);
                 },
                 inputs));
  }
  return out;
}

}  // namespace serpentine
