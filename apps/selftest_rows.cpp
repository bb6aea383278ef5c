// Gather, merge, norms and the serializations, against their second implementations.
#include <torch/torch.h>

#include "apps/selftest.h"
#include "core/ops/merge.h"
#include "core/ops/norm.h"
#include "scans/serialization.h"

namespace serpentine {
namespace {

using torch::Tensor;

std::shared_ptr<Serialization> build(const Registry<Serialization>& all, const std::string& name) {
  return build_serialization(all, Config::parse("type: " + name));
}

TokenLayout image(int64_t height, int64_t width) {
  TokenLayout layout;
  layout.num_tokens = height * width;
  layout.height = height;
  layout.width = width;
  // for the strategies of points and of learned keys
  const auto token = torch::arange(height * width);
  layout.coords = torch::stack({token.div(width, "floor"), token % width, token * 7 % 5}, -1)
                      .to(torch::kFloat)
                      .unsqueeze(0);
  layout.keys = (token * 37 % 101).to(torch::kFloat).unsqueeze(0);
  return layout;
}

std::vector<int64_t> numbers(const Tensor& tensor) {
  const auto flat = tensor.to(torch::kCPU, torch::kLong).flatten().contiguous();
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

/// What an order promises, looked at position by position; "" or what is wrong.
std::string wrong_with(const ScanOrder& order, const Serialization& strategy, int64_t tokens) {
  const auto walk = numbers(order.tokens), offsets = numbers(order.offsets),
             branch = numbers(order.branch), visits = numbers(order.visits);
  const auto positions = static_cast<int64_t>(walk.size());
  if (order.num_tokens != tokens) return "another number of tokens";
  if (order.num_branches != strategy.num_branches()) return "another number of branches";
  if (offsets.size() != branch.size() + 1 || offsets.front() != 0 || offsets.back() != positions) {
    return "its sequences do not cover its positions";
  }
  std::vector<std::vector<int64_t>> seen(static_cast<size_t>(tokens));  // positions of each token
  std::vector<std::vector<int64_t>> by_branch(static_cast<size_t>(order.num_branches),
                                              std::vector<int64_t>(static_cast<size_t>(tokens)));
  for (size_t s = 0; s < branch.size(); ++s) {
    if (offsets[s + 1] < offsets[s] || branch[s] < 0 || branch[s] >= order.num_branches ||
        (s > 0 && branch[s] < branch[s - 1])) {
      return "its sequences are not sorted";
    }
    for (int64_t p = offsets[s]; p < offsets[s + 1]; ++p) {
      const int64_t token = walk[static_cast<size_t>(p)];
      if (token >= tokens || token < kPad) return "a token that is none";
      if (token == kPad) continue;
      seen[static_cast<size_t>(token)].push_back(p);
      ++by_branch[static_cast<size_t>(branch[s])][static_cast<size_t>(token)];
    }
  }
  const auto slots = static_cast<size_t>(order.num_visits());
  for (size_t t = 0; t < seen.size(); ++t) {
    std::vector<int64_t> claimed;
    for (size_t v = 0; v < slots; ++v) {
      if (visits[t * slots + v] >= 0) claimed.push_back(visits[t * slots + v]);
    }
    std::sort(claimed.begin(), claimed.end());
    if (seen[t].empty()) return "a token that is never visited";
    if (claimed != seen[t]) return "its visits are not where its tokens are";
    for (const auto& of_branch : by_branch) {
      if (order.complete && of_branch[t] != 1) return "not complete, though it says so";
    }
  }
  return "";
}

/// Whether each step goes to a neighbour on the grid.
bool is_connected(const ScanOrder& order, int64_t width) {
  const auto walk = numbers(order.tokens), offsets = numbers(order.offsets);
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    for (int64_t p = offsets[s] + 1; p < offsets[s + 1]; ++p) {
      const int64_t a = walk[static_cast<size_t>(p - 1)], b = walk[static_cast<size_t>(p)];
      if (std::abs(a / width - b / width) + std::abs(a % width - b % width) != 1) return false;
    }
  }
  return true;
}

ScanOrder for_every_sample(ScanOrder order) {
  if (order.tokens.dim() == 2) {
    order.tokens = order.tokens[0];
    order.visits = order.visits[0];
  }
  return order;
}

}  // namespace

CheckResult check_orders() {
  Registry<Serialization> all("serialization");
  add_serializations(all);
  CheckResult result{"serializations", "their promises, by position", 0, 0, 0, 0, 0, ""};
  struct Size {
    int64_t height, width;
  };
  for (const auto& name : all.names()) {
    const auto strategy = build(all, name);
    for (const Size size : {Size{1, 1}, Size{5, 7}, Size{8, 8}}) {
      ++result.cases;
      TokenLayout layout = image(size.height, size.width);
      if (name == "traverse") layout.height = layout.width = 0;  // a cloud of points
      const ScanOrder order = for_every_sample(strategy->order(layout, {}));
      std::string wrong = wrong_with(order, *strategy, layout.num_tokens);
      const bool connects = name == "continuous" || name == "zigzag" ||
                            (name == "hilbert" && size.height == size.width);
      if (wrong.empty() && connects && !is_connected(order, size.width)) wrong = "it jumps";
      if (!wrong.empty() && result.problem.empty()) result.problem = name + ": " + wrong;
    }
  }
  return result;
}

CheckResult check_rows(c10::Device device) {
  torch::manual_seed(3);
  CheckResult result{"gather and merge", "index_select, index_add", 0, 0, 0, 1e-6, 1e-6, ""};
  Registry<Serialization> all("serialization");
  add_serializations(all);
  for (const char* name : {"cross", "random", "bidirectional", "hilbert"}) {
    const auto layout = image(6, 8);
    const ScanOrder order = for_every_sample(build(all, name)->order(layout, {}));
    const auto walk = order.tokens.to(torch::kLong);
    const auto x = torch::randn({2, order.num_tokens, 33}, torch::requires_grad());
    const auto y = torch::randn({2, order.num_positions(), 33}, torch::requires_grad());
    const auto visits = torch::bincount(walk, {}, order.num_tokens).unsqueeze(1);
    const auto sum = torch::zeros_like(x).index_add(1, walk, y);
    const auto there = order.to(device);
    const auto run = [&](const Tensor& made, const Tensor& expected, const Tensor& leaf) {
      ++result.cases;
      result.compare(name, made, expected, false);
      const auto cotangent = torch::randn_like(expected);
      const auto actual = torch::autograd::grad({made}, {leaf}, {cotangent.to(device)}, true)[0];
      const auto wanted = torch::autograd::grad({expected}, {leaf}, {cotangent}, true)[0];
      result.compare(name, actual, wanted, true);
    };
    run(gather_rows(x.to(device), there), x.index_select(1, walk), x);
    run(merge_rows(y.to(device), there, Merge::kSum), sum, y);
    run(merge_rows(y.to(device), there, Merge::kMean), sum / visits, y);
  }
  return result;
}

CheckResult check_norms(c10::Device device) {
  torch::manual_seed(4);
  CheckResult result{"norm with residual", "LibTorch's norms in float64", 0, 0, 0, 1e-5, 2e-5, ""};
  constexpr int64_t kChannels = 96;
  for (const auto kind : {NormKind::kRms, NormKind::kLayer}) {
    ++result.cases;
    const std::vector<Tensor> drawn = {torch::randn({4, 9, kChannels}),
                                       torch::randn({4, 9, kChannels}), torch::randn({kChannels})};
    const auto leaves_on = [&](c10::Device where, torch::ScalarType type) {
      std::vector<Tensor> leaves;
      for (const auto& tensor : drawn)
        leaves.push_back(tensor.to(where, type).requires_grad_(true));
      return leaves;
    };
    const auto ours = leaves_on(device, torch::kFloat);
    const auto theirs = leaves_on(torch::kCPU, torch::kDouble);
    AddNormArgs args;
    args.x = ours[0];
    args.residual = ours[1];
    args.weight = ours[2];
    args.kind = kind;
    const auto made = add_norm(args);
    const auto sum = theirs[0] + theirs[1];
    const auto expected = kind == NormKind::kRms
                              ? torch::rms_norm(sum, {kChannels}, theirs[2], args.eps)
                              : torch::layer_norm(sum, {kChannels}, theirs[2], {}, args.eps);
    result.compare("the output", made.y, expected, false);
    result.compare("the sum", made.residual, sum, false);
    const auto cotangent = torch::randn_like(expected);
    const auto actual =
        torch::autograd::grad({made.y}, ours, {cotangent.to(device, torch::kFloat)});
    const auto wanted = torch::autograd::grad({expected}, theirs, {cotangent});
    for (size_t i = 0; i < actual.size(); ++i) {
      result.compare("a gradient", actual[i], wanted[i], true);
    }
  }
  return result;
}

}  // namespace serpentine
