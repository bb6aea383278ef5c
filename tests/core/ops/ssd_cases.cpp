#include "core/ops/ssd_cases.h"

#include <sstream>

namespace serpentine::testing {

std::string name_of(const SsdCase& of) {
  std::ostringstream text;
  text << of.order << "_B" << of.batch << "T" << of.tokens << "H" << of.heads << "E" << of.channels
       << "G" << of.groups << "N" << of.states << "Q" << of.chunk
       << (of.rows == Rows::kToken ? "_token" : "_position")
       << (of.merge == Merge::kSum    ? ""
           : of.merge == Merge::kMean ? "_mean"
                                      : "_concat")
       << (of.initial_state ? "_state" : "") << (of.wide_skip ? "_wide" : "")
       << (of.optional_inputs ? "" : "_plain") << (of.softplus ? "" : "_linear")
       << (of.dt_max < 1e9 ? "_limits" : "") << "_" << torch::toString(of.type);
  return text.str();
}

SsdArgs random_args(const SsdCase& of, const ScanOrder& order) {
  const auto type = torch::dtype(of.type);
  const auto wide = torch::dtype(of.type == torch::kDouble ? torch::kDouble : torch::kFloat);
  const int64_t batch = of.batch, branches = order.num_branches;
  const bool by_token = of.rows == Rows::kToken;
  const int64_t rows = by_token ? order.num_tokens : order.num_positions();
  const auto shape = [&](std::vector<int64_t> rest) {
    std::vector<int64_t> all{batch, rows};
    if (by_token) all.push_back(branches);
    all.insert(all.end(), rest.begin(), rest.end());
    return all;
  };
  SsdArgs args;
  args.x = torch::randn({batch, rows, of.heads, of.channels}, type);
  args.dt = torch::randn(shape({of.heads}), type) * 0.7;
  if (!of.softplus) args.dt = args.dt.abs();
  args.A = -torch::rand({branches, of.heads}, wide) * 2;

  // B and C as the slices of one projection that models pass
  const auto both = torch::randn(shape({of.groups, 2 * of.states + 3}), type);
  args.B = both.narrow(-1, 3, of.states);
  args.C = both.narrow(-1, 3 + of.states, of.states);
  if (of.optional_inputs) {
    args.D = of.wide_skip ? torch::randn({branches, of.heads, of.channels}, wide)
                          : torch::randn({branches, of.heads}, wide);
    args.dt_bias = torch::randn({branches, of.heads}, wide) * 0.5;
  }
  if (of.initial_state) {
    args.initial_state =
        torch::randn({batch, order.num_sequences(), of.heads, of.channels, of.states}, wide);
  }
  args.dt_softplus = of.softplus;
  args.dt_min = of.dt_min;
  args.dt_max = of.dt_max;
  args.chunk = of.chunk;
  return args;
}

std::vector<torch::Tensor> operands_of(const SsdArgs& args) {
  std::vector<torch::Tensor> all;
  for (const auto& tensor :
       {args.x, args.dt, args.A, args.B, args.C, args.D, args.dt_bias, args.initial_state}) {
    if (tensor.defined()) all.push_back(tensor);
  }
  return all;
}

SsdArgs with_operands(SsdArgs args, const std::vector<torch::Tensor>& operands) {
  size_t next = 0;
  for (auto* tensor : {&args.x, &args.dt, &args.A, &args.B, &args.C, &args.D, &args.dt_bias,
                       &args.initial_state}) {
    if (tensor->defined()) *tensor = operands.at(next++);
  }
  return args;
}

SsdArgs move_to(const SsdArgs& args, at::Device device, bool in_double) {
  std::vector<torch::Tensor> moved;
  for (const auto& tensor : operands_of(args)) {
    moved.push_back(in_double ? tensor.to(device, torch::kDouble) : tensor.to(device));
  }
  return with_operands(args, moved);
}

std::vector<SsdCase> ssd_cases() {
  std::vector<SsdCase> all;
  for (const char* order :
       {"identity", "reversed", "random", "cross", "padded", "groups", "ragged", "twice"}) {
    for (const Rows rows : {Rows::kToken, Rows::kPosition}) {
      all.push_back({.order = order, .rows = rows, .initial_state = true});
    }
  }
  for (const Merge merge : {Merge::kMean, Merge::kConcat}) {
    all.push_back({.order = "cross", .merge = merge});
  }
  for (const int64_t tokens : {1, 2, 15, 16, 17, 33, 130}) {
    all.push_back({.tokens = tokens, .wide_skip = true, .initial_state = true});
  }
  for (const auto& [heads, groups] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {6, 1}, {6, 3}, {4, 4}}) {
    all.push_back({.heads = heads, .groups = groups});
  }
  for (const int64_t states : {1, 16, 64, 200, 256}) {
    all.push_back({.tokens = 70, .states = states, .chunk = 0, .initial_state = true});
  }
  all.push_back({.optional_inputs = false});
  all.push_back({.softplus = false, .dt_min = 0.2, .dt_max = 0.9});
  all.push_back({.dt_min = 0.3, .dt_max = 1.1});
  for (const auto type : {torch::kDouble, torch::kBFloat16, torch::kHalf}) {
    all.push_back({.tokens = 40, .initial_state = true, .type = type});
    all.push_back({.order = "cross", .tokens = 40, .type = type});
  }
  return all;
}

ScanRun run_ssd(SsdFunction function, const SsdArgs& args, const ScanOrder& order,
                const SsdCase& of) {
  std::vector<torch::Tensor> leaves;
  for (const auto& tensor : operands_of(args))
    leaves.push_back(tensor.detach().requires_grad_(true));
  const auto made = function(with_operands(args, leaves), order, of.rows, of.merge, true);
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(uint64_t{11});
  const auto like = [&](const torch::Tensor& x) {
    return torch::randn(x.sizes(), generator, torch::dtype(torch::kDouble))
        .to(x.device(), x.scalar_type());
  };
  const auto grads = torch::autograd::grad({made.y, made.final_state}, leaves,
                                           {like(made.y), like(made.final_state)});
  ScanRun run{{"y", "final_state"}, {made.y.detach(), made.final_state.detach()}};
  for (size_t i = 0; i < grads.size(); ++i) {
    run.names.push_back("gradient " + std::to_string(i));
    run.values.push_back(grads[i]);
  }
  return run;
}

}  // namespace serpentine::testing
