#include "core/ops/scan_cases.h"

#include <gtest/gtest.h>

#include "support/close.h"

namespace serpentine::testing {
namespace {

ScanOrder single(const torch::Tensor& tokens, int64_t count) {
  return make_order(tokens, torch::tensor({int64_t{0}, tokens.size(-1)}),
                    torch::zeros({1}, torch::kInt), count);
}

/// Rows and columns of a grid `width` wide, and both from the end.
ScanOrder cross(int64_t tokens) {
  const int64_t width = std::max<int64_t>(1, static_cast<int64_t>(std::sqrt(tokens)));
  const auto all = torch::arange(tokens);
  const auto columns = std::get<1>((all % width).sort(/*stable=*/true, /*dim=*/0, false));
  const ScanOrder row = single(all, tokens), column = single(columns, tokens);
  return stack({row, column, reversed(row), reversed(column)});
}

/// Every fourth token to one of four branches, all branches of one length.
ScanOrder groups(int64_t tokens) {
  const int64_t length = (tokens + 3) / 4;
  auto walk = torch::full({4, length}, kPad, torch::kInt);
  for (int64_t t = 0; t < tokens; ++t) walk[t % 4][t / 4] = t;
  return make_order(walk.flatten(), torch::arange(5) * length, torch::arange(4), tokens);
}

}  // namespace

std::string name_of(const ScanCase& scan) {
  const char* merges[] = {"sum", "mean", "concat"};
  return scan.order + "_B" + std::to_string(scan.batch) + "_T" + std::to_string(scan.tokens) +
         "_D" + std::to_string(scan.channels) + "_N" + std::to_string(scan.states) +
         (scan.rows == Rows::kToken ? "_token_" : "_position_") +
         merges[static_cast<int>(scan.merge)] + (scan.optional_inputs ? "" : "_plain") +
         (scan.initial_state ? "_state" : "") + (scan.softplus ? "" : "_linear") + "_" +
         c10::toString(scan.type);
}

ScanOrder make_test_order(const std::string& name, int64_t batch, int64_t tokens) {
  const auto all = torch::arange(tokens);
  if (name == "identity") return identity_order(tokens);
  if (name == "reversed") return reversed(identity_order(tokens));
  if (name == "cross") return cross(tokens);
  if (name == "groups") return groups(tokens);
  if (name == "twice") return single(torch::cat({all, all.flip(0)}), tokens);
  if (name == "random") {
    std::vector<torch::Tensor> walks;
    for (int64_t b = 0; b < batch; ++b) walks.push_back(torch::randperm(tokens));
    return single(torch::stack(walks), tokens);
  }
  if (name == "padded") {
    const auto pads = torch::full({3}, kPad, torch::kLong);
    return single(torch::cat({all.slice(0, 0, tokens / 2), pads, all.slice(0, tokens / 2), pads}),
                  tokens);
  }
  TORCH_CHECK(name == "ragged", "unknown order ", name);
  return ragged_order(
      torch::tensor({int64_t{0}, tokens / 3, tokens / 3, tokens - tokens / 4, tokens}));
}

SelectiveScanArgs random_args(const ScanCase& scan, const ScanOrder& order) {
  const auto type = torch::dtype(scan.type);
  const auto wide = torch::dtype(scan.type == torch::kDouble ? torch::kDouble : torch::kFloat);
  const int64_t B = scan.batch, D = scan.channels, N = scan.states, K = order.num_branches;
  const bool by_token = scan.rows == Rows::kToken;
  const int64_t R = by_token ? order.num_tokens : order.num_positions();
  const auto rows = [&](int64_t width) {
    return by_token ? std::vector<int64_t>{B, R, K, width} : std::vector<int64_t>{B, R, width};
  };
  SelectiveScanArgs args;
  args.u = torch::randn({B, R, D}, type);
  args.delta = torch::randn(rows(D), type) * 0.7;
  if (!scan.softplus) args.delta = args.delta.abs();

  // B and C as the slices of one projection that models pass
  const auto both = torch::randn(rows(2 * N + 3), type);
  args.B = both.narrow(-1, 3, N);
  args.C = both.narrow(-1, 3 + N, N);
  args.A = -torch::rand({K, D, N}, wide) * 2;
  if (scan.optional_inputs) {
    args.D = torch::randn({K, D}, wide);
    args.delta_bias = torch::randn({K, D}, wide) * 0.5;
  }
  if (scan.initial_state) {
    args.initial_state = torch::randn({B, order.num_sequences(), D, N}, wide);
  }
  args.delta_softplus = scan.softplus;
  return args;
}

std::vector<torch::Tensor> operands_of(const SelectiveScanArgs& args) {
  std::vector<torch::Tensor> all;
  for (const auto& tensor :
       {args.u, args.delta, args.A, args.B, args.C, args.D, args.delta_bias, args.initial_state}) {
    if (tensor.defined()) all.push_back(tensor);
  }
  return all;
}

SelectiveScanArgs move_to(const SelectiveScanArgs& args, at::Device device, bool in_double) {
  std::vector<torch::Tensor> moved;
  for (const auto& tensor : operands_of(args)) {
    moved.push_back(tensor.to(device, in_double ? torch::kDouble : tensor.scalar_type()));
  }
  return with_operands(args, moved);
}

SelectiveScanArgs with_operands(SelectiveScanArgs args,
                                const std::vector<torch::Tensor>& operands) {
  size_t next = 0;
  for (auto* tensor : {&args.u, &args.delta, &args.A, &args.B, &args.C, &args.D, &args.delta_bias,
                       &args.initial_state}) {
    if (tensor->defined()) *tensor = operands[next++];
  }
  return args;
}

std::vector<ScanCase> shape_cases() {
  std::vector<ScanCase> all;
  for (const char* order : {"identity", "cross"}) {
    for (const int64_t tokens : {0, 1, 31, 33, 257}) {
      for (const int64_t channels : {1, 24, 64}) {
        if (tokens == 257 && channels == 64) continue;  // the reference is slow
        all.push_back({.order = order, .tokens = tokens, .channels = channels});
      }
    }
  }
  all.push_back({.batch = 1, .tokens = 1000, .channels = 24, .initial_state = true});
  for (const int64_t states : {1, 2, 3, 7, 8, 31, 64, 100, 256}) {
    all.push_back({.batch = 1, .tokens = 70, .channels = 17, .states = states});
  }
  all.push_back({.batch = 1, .tokens = 300, .channels = 5, .states = 65});
  all.push_back({.batch = 0, .tokens = 5, .channels = 3});
  return all;
}

std::vector<ScanCase> order_cases() {
  std::vector<ScanCase> all;
  for (const char* order : {"reversed", "random", "cross", "padded", "groups", "ragged", "twice"}) {
    for (const Rows rows : {Rows::kToken, Rows::kPosition}) {
      for (const Merge merge : {Merge::kSum, Merge::kMean, Merge::kConcat}) {
        all.push_back({.order = order,
                       .tokens = 35,
                       .channels = 20,
                       .states = 5,
                       .rows = rows,
                       .merge = merge,
                       .initial_state = true});
      }
    }
  }
  return all;
}

std::vector<ScanCase> type_cases() {
  std::vector<ScanCase> all;
  for (const auto type : {torch::kDouble, torch::kBFloat16, torch::kHalf}) {
    for (const char* order : {"identity", "cross", "padded", "random"}) {
      for (const Rows rows : {Rows::kToken, Rows::kPosition}) {
        all.push_back({.order = order,
                       .tokens = 40,
                       .channels = 37,
                       .states = 6,
                       .rows = rows,
                       .type = type});
      }
    }
  }
  // whole blocks of one and two states have walks of their own; 40 and 72: and a rest, one vector
  for (const auto type : {torch::kFloat, torch::kDouble, torch::kBFloat16}) {
    for (const char* order : {"identity", "cross", "padded", "random", "ragged"}) {
      for (const int64_t states : {1, 2}) {
        const bool odd = states == 1;
        all.push_back({.order = order,
                       .tokens = 70,
                       .channels = odd ? 72 : 40,
                       .states = states,
                       .optional_inputs = odd,
                       .initial_state = !odd,
                       .type = type});
      }
    }
  }
  for (const int64_t states : {1, 2}) {
    all.push_back({.channels = 112, .states = states, .initial_state = true, .softplus = false});
  }
  for (const bool softplus : {false, true}) {
    all.push_back({.order = "groups", .optional_inputs = false, .softplus = softplus});
  }
  return all;
}

ScanRun run_scan(ScanFunction function, const SelectiveScanArgs& args, const ScanOrder& order,
                 const ScanCase& scan) {
  std::vector<torch::Tensor> leaves;
  for (const auto& tensor : operands_of(args))
    leaves.push_back(tensor.detach().requires_grad_(true));
  const auto result = function(with_operands(args, leaves), order, scan.rows, scan.merge, true);
  torch::manual_seed(7);
  // equal on every device and in every precision: values that the type holds, for they become its
  // cotangents
  const auto weigh = [&](const torch::Tensor& made) {
    const auto weights =
        torch::randn(made.sizes(), torch::kDouble).to(scan.type).to(args.A.options());
    return (made.to(args.A.dtype()) * weights).sum();
  };
  const auto weighed = weigh(result.y);
  const auto loss = weighed + weigh(result.final_state);
  ScanRun run{{"y", "final_state"}, {result.y.detach(), result.final_state.detach()}};
  const auto grads = torch::autograd::grad({loss}, leaves, {}, std::nullopt, /*create_graph=*/false,
                                           /*allow_unused=*/true);
  const auto names = {"u", "delta", "A", "B", "C", "D", "delta_bias", "initial_state"};
  const auto tensors = {args.u, args.delta, args.A,          args.B,
                        args.C, args.D,     args.delta_bias, args.initial_state};
  size_t next = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    if (!tensors.begin()[i].defined()) continue;
    run.names.push_back(std::string("gradient of ") + names.begin()[i]);
    run.values.push_back(grads[next].defined() ? grads[next] : torch::zeros_like(leaves[next]));
    ++next;
  }
  return run;
}

void expect_same(const ScanRun& actual, const ScanRun& expected) {
  ASSERT_EQ(actual.names, expected.names);
  for (size_t i = 0; i < actual.values.size(); ++i) {
    expect_equal(actual.values[i], expected.values[i], actual.names[i]);
  }
}

}  // namespace serpentine::testing
