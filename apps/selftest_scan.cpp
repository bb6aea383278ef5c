// The selective scan and the causal convolution, against their second implementations.
#include <cmath>

#include <torch/torch.h>

#include "apps/selftest.h"
#include "core/ops/causal_conv1d.h"
#include "core/ops/selective_scan.h"

namespace serpentine {
namespace {

using torch::Tensor;

ScanOrder single(const Tensor& tokens, int64_t count) {
  return make_order(tokens.to(torch::kInt),
                    torch::tensor({int64_t{0}, tokens.size(-1)}, torch::kInt),
                    torch::zeros({1}, torch::kInt), count);
}

/// Rows and columns of a grid of 8, and both from the end: four branches.
ScanOrder cross(int64_t tokens) {
  const auto rows = torch::arange(tokens);
  const auto columns = rows.view({tokens / 8, 8}).t().reshape({-1});
  const ScanOrder row = single(rows, tokens), column = single(columns, tokens);
  return stack({row, column, reversed(row), reversed(column)});
}

struct Named {
  const char* name;
  ScanOrder order;
};

std::vector<Named> orders_of(int64_t tokens) {
  const auto walk = torch::randperm(tokens);
  return {{"identity", identity_order(tokens)},
          {"cross", cross(tokens)},
          {"random", single(walk, tokens)},
          {"twice", single(torch::cat({walk, walk.flip(0)}), tokens)},
          {"ragged",
           ragged_order(torch::tensor({int64_t{0}, tokens / 3, tokens / 3, tokens}, torch::kInt))}};
}

SelectiveScanArgs draw(const ScanOrder& order, int64_t batch, int64_t channels, int64_t states,
                       torch::ScalarType type) {
  const auto rows = torch::dtype(type);
  const auto wide = torch::dtype(type == torch::kDouble ? torch::kDouble : torch::kFloat);
  const int64_t T = order.num_tokens, K = order.num_branches;
  SelectiveScanArgs args;
  args.u = torch::randn({batch, T, channels}, rows);
  args.delta = torch::randn({batch, T, K, channels}, rows) * 0.7;
  args.A = -torch::rand({K, channels, states}, wide) * 2;
  args.B = torch::randn({batch, T, K, states}, rows);
  args.C = torch::randn({batch, T, K, states}, rows);
  args.D = torch::randn({K, channels}, wide);
  args.delta_bias = torch::randn({K, channels}, wide) * 0.5;
  args.initial_state = torch::randn({batch, order.num_sequences(), channels, states}, wide);
  return args;
}

std::vector<Tensor*> operands_of(SelectiveScanArgs& args) {
  return {&args.u, &args.delta, &args.A,          &args.B,
          &args.C, &args.D,     &args.delta_bias, &args.initial_state};
}

using Scan = SelectiveScanResult (*)(const SelectiveScanArgs&, const ScanOrder&, Rows, Merge, bool);

/// y, the final state and all gradients, on a device, in the operands' types or in float64.
std::vector<Tensor> run(Scan scan, SelectiveScanArgs args, const ScanOrder& order,
                        c10::Device device, bool in_double) {
  std::vector<Tensor> leaves;
  for (Tensor* operand : operands_of(args)) {
    const auto type = in_double ? torch::kDouble : operand->scalar_type();
    *operand = operand->detach().to(device, type).requires_grad_(true);
    leaves.push_back(*operand);
  }
  const auto result = scan(args, order.to(device), Rows::kToken, Merge::kSum, true);
  // fixed cotangents that every type holds exactly
  const auto weigh = [](const Tensor& made) {
    const auto weight = (torch::arange(made.numel(), made.options().dtype(torch::kDouble)) % 7 - 3)
                            .view(made.sizes());
    return (made.to(torch::kDouble) * weight).sum();
  };
  const auto loss = weigh(result.y) + weigh(result.final_state);
  std::vector<Tensor> all = {result.y.detach(), result.final_state.detach()};
  for (const auto& gradient : torch::autograd::grad({loss}, leaves)) all.push_back(gradient);
  return all;
}

void check_case(CheckResult& result, const SelectiveScanArgs& args, const Named& named,
                c10::Device device) {
  ++result.cases;
  const auto expected = run(selective_scan_reference, args, named.order, torch::kCPU, true);
  const auto actual = run(selective_scan, args, named.order, device, false);
  const auto again = run(selective_scan, args, named.order, device, false);
  for (size_t i = 0; i < actual.size(); ++i) {
    result.compare(named.name, actual[i], expected[i], i >= 2);
    if (!actual[i].equal(again[i]) && result.problem.empty()) {
      result.problem = std::string(named.name) + ": two runs differ";
    }
  }
}

}  // namespace

std::vector<CheckResult> check_scan(c10::Device device) {
  struct Type {
    const char* name;
    torch::ScalarType type;
    double output, gradient;
  };
  torch::manual_seed(1);
  std::vector<CheckResult> results;
  const char* against = "the definition in float64";
  for (const Type& type :
       {Type{"float64", torch::kDouble, 1e-11, 1e-11}, Type{"float32", torch::kFloat, 1e-5, 2e-5},
        Type{"bfloat16", torch::kBFloat16, 8e-3, 8e-3},
        Type{"float16", torch::kHalf, 1e-3, 1e-3}}) {
    CheckResult result{
        std::string("scan, ") + type.name, against, 0, 0, 0, type.output, type.gradient, ""};
    for (const auto& named : orders_of(48)) {
      for (const int64_t states : {1, 3, 16, 64}) {
        check_case(result, draw(named.order, 2, 37, states, type.type), named, device);
      }
    }
    results.push_back(result);
  }
  // one long sequence of few channels: the regime that cuts it into pieces
  CheckResult cut{"scan, long, float32", against, 0, 0, 0, 1e-5, 2e-5, ""};
  for (const int64_t states : {1, 16}) {
    for (const Named& named : {Named{"identity", identity_order(1500)},
                               Named{"random", single(torch::randperm(1500), 1500)}}) {
      check_case(cut, draw(named.order, 1, 9, states, torch::kFloat), named, device);
    }
  }
  results.push_back(cut);
  return results;
}

CheckResult check_convolution(c10::Device device, torch::ScalarType type) {
  torch::manual_seed(2);
  const bool half = type != torch::kFloat;
  const double allowed = half ? 8e-3 : 1e-5;
  CheckResult result{half ? "convolution, bfloat16" : "convolution, float32",
                     "conv1d of LibTorch in float64",
                     0,
                     0,
                     0,
                     allowed,
                     half ? 1.6e-2 : 2e-5,
                     ""};
  constexpr int64_t kTokens = 77, kChannels = 40;
  for (const int64_t width : {2, 3, 4, 7}) {
    for (const bool silu : {false, true}) {
      for (const Named& named : {Named{"identity", identity_order(kTokens)},
                                 Named{"random", single(torch::randperm(kTokens), kTokens)}}) {
        ++result.cases;
        const auto x = torch::randn({2, kTokens, kChannels}, torch::dtype(type));
        const auto weight = torch::randn({kChannels, width}), bias = torch::randn({kChannels});
        const auto cotangent = torch::randn({2, kTokens, kChannels}, torch::dtype(type));
        const auto ours = [&] {
          std::vector<Tensor> leaves;
          for (const auto& tensor : {x, weight, bias}) {
            leaves.push_back(tensor.to(device).requires_grad_(true));
          }
          CausalConv1dArgs args;
          args.x = leaves[0];
          args.weight = leaves[1].unsqueeze(0);
          args.bias = leaves[2].unsqueeze(0);
          args.silu = silu;
          const auto y = causal_conv1d(args, named.order.to(device)).y;
          auto all = torch::autograd::grad({y}, leaves, {cotangent.to(device)});
          all.insert(all.begin(), y);
          return all;
        }();
        std::vector<Tensor> leaves;
        for (const auto& tensor : {x, weight, bias}) {
          leaves.push_back(tensor.to(torch::kDouble).requires_grad_(true));
        }
        const auto rows = leaves[0].index_select(1, named.order.tokens.to(torch::kLong));
        const auto padded = torch::constant_pad_nd(rows.transpose(1, 2), {width - 1, 0});
        auto y = torch::conv1d(padded, leaves[1].unsqueeze(1), leaves[2], /*stride=*/1,
                               /*padding=*/torch::IntArrayRef{0}, /*dilation=*/1, kChannels)
                     .transpose(1, 2);
        if (silu) y = torch::silu(y);
        auto expected = torch::autograd::grad({y}, leaves, {cotangent.to(torch::kDouble)});
        expected.insert(expected.begin(), y);
        for (size_t i = 0; i < ours.size(); ++i) {
          result.compare(named.name, ours[i], expected[i], i >= 1);
        }
      }
    }
  }
  return result;
}

}  // namespace serpentine
