// The convolution against its definition: forward and gradients over widths, orders and dtypes.
#include "core/ops/causal_conv1d.h"

#include <gtest/gtest.h>

#include "core/ops/causal_conv1d_published.h"
#include "core/ops/merge.h"
#include "scan_cases.h"
#include "support/cuda.h"
#include "support/gradcheck.h"

namespace serpentine::testing {
namespace {

using torch::Tensor;

struct ConvCase {
  std::string order = "identity";
  int64_t tokens = 33, channels = 24, width = 4;
  bool optional_inputs = true, silu = true;
  at::ScalarType type = torch::kFloat;
  int64_t batch = 2;
};

CausalConv1dArgs random_conv(const ConvCase& of, const ScanOrder& order) {
  const auto wide = of.type == torch::kDouble ? torch::kDouble : torch::kFloat;
  CausalConv1dArgs args;
  args.x = torch::randn({of.batch, order.num_tokens, of.channels}).to(of.type);
  args.weight = torch::randn({order.num_branches, of.channels, of.width}).to(wide);
  args.silu = of.silu;
  if (!of.optional_inputs) return args;
  args.bias = torch::randn({order.num_branches, of.channels}).to(wide);
  args.initial_state =
      torch::randn({of.batch, order.num_sequences(), of.width - 1, of.channels}).to(of.type);
  return args;
}

using Convolve = CausalConv1dResult (*)(const CausalConv1dArgs&, const ScanOrder&, bool);

/// y, the final state and the gradients of the defined operands, for cotangents that depend on
/// shapes only.
std::vector<Tensor> run(Convolve convolve, CausalConv1dArgs args, const ScanOrder& order) {
  std::vector<Tensor> leaves;
  for (auto* operand : {&args.x, &args.weight, &args.bias, &args.initial_state}) {
    if (!operand->defined()) continue;
    *operand = operand->detach().clone().requires_grad_(true);
    leaves.push_back(*operand);
  }
  const auto made = convolve(args, order, true);
  torch::manual_seed(7);
  const auto dy = torch::randn(made.y.sizes()).to(made.y.options());
  const auto dfinal = torch::randn(made.final_state.sizes()).to(made.y.options());
  std::vector<Tensor> all{made.y.detach(), made.final_state.detach()};
  for (const auto& grad :
       torch::autograd::grad({made.y, made.final_state}, leaves, {dy, dfinal}, {}, false, true)) {
    all.push_back(grad);
  }
  return all;
}

class CausalConv1d : public ::testing::TestWithParam<ConvCase> {};

TEST_P(CausalConv1d, MatchesReference) {
  torch::manual_seed(1);
  const auto& of = GetParam();
  const auto order = make_test_order(of.order, of.batch, of.tokens);
  const auto args = random_conv(of, order);
  const auto actual = run(causal_conv1d, args, order),
             expected = run(causal_conv1d_reference, args, order);
  const bool narrow = of.type == torch::kBFloat16 || of.type == torch::kHalf;
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_EQ(actual[i].dtype(), expected[i].dtype());

    // measured worst: float32 5.5e-7 (the reference's own sum over 2000 rows); narrow types may
    // round the other way
    expect_close(actual[i], expected[i],
                 of.type == torch::kDouble ? 1e-14
                 : narrow                  ? 2e-3
                                           : 1e-6,
                 std::to_string(i));
  }
}

TEST_P(CausalConv1d, CudaMatchesTheCpuAndRepeats) {
  SERPENTINE_NEEDS_CUDA();
  torch::manual_seed(1);
  const auto& of = GetParam();
  const auto order = make_test_order(of.order, of.batch, of.tokens);
  auto args = random_conv(of, order);
  const auto expected = run(causal_conv1d, args, order);
  for (auto* operand : {&args.x, &args.weight, &args.bias, &args.initial_state}) {
    if (operand->defined()) *operand = operand->to(at::kCUDA);
  }
  const auto there = order.to(at::kCUDA);
  const auto actual = run(causal_conv1d, args, there), again = run(causal_conv1d, args, there);
  const bool narrow = of.type == torch::kBFloat16 || of.type == torch::kHalf;
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_EQ(actual[i].dtype(), expected[i].dtype());
    expect_close(actual[i], expected[i],
                 of.type == torch::kDouble ? 1e-14
                 : narrow                  ? 4e-3
                                           : 2e-6,
                 std::to_string(i));
    expect_equal(again[i], actual[i], std::to_string(i));
  }
}

/// So many blocks that runs of positions get longer.
TEST(CausalConv1dCuda, LongRunsMatchTheCpu) {
  SERPENTINE_NEEDS_CUDA();
  torch::manual_seed(3);
  for (const char* name : {"identity", "random"}) {
    const ConvCase of{.order = name, .tokens = 1500, .channels = 1024, .batch = 6};
    const auto order = make_test_order(of.order, of.batch, of.tokens);
    auto args = random_conv(of, order);
    const auto expected = run(causal_conv1d, args, order);
    for (auto* operand : {&args.x, &args.weight, &args.bias, &args.initial_state}) {
      *operand = operand->to(at::kCUDA);
    }
    const auto actual = run(causal_conv1d, args, order.to(at::kCUDA));
    for (size_t i = 0; i < actual.size(); ++i) {
      expect_close(actual[i], expected[i], 1e-5, std::to_string(i));
    }
  }
}

TEST_P(CausalConv1d, RepeatsBitForBitOnAnyThreads) {
  torch::manual_seed(2);
  const auto order = make_test_order(GetParam().order, GetParam().batch, GetParam().tokens);
  const auto args = random_conv(GetParam(), order);
  const int threads = torch::get_num_threads();
  torch::set_num_threads(1);
  const auto once = run(causal_conv1d, args, order);
  torch::set_num_threads(2);
  const auto again = run(causal_conv1d, args, order);
  torch::set_num_threads(threads);
  for (size_t i = 0; i < once.size(); ++i) expect_equal(again[i], once[i], std::to_string(i));
}

std::vector<ConvCase> conv_cases() {
  std::vector<ConvCase> all;
  for (int64_t width = 1; width <= kMaxConvWidth; ++width)
    all.push_back({"identity", 33, 24, width});
  for (int64_t tokens : {0, 1, 2, 31, 257, 1000}) all.push_back({"identity", tokens, 24, 4});
  for (int64_t channels : {1, 7, 64}) all.push_back({"identity", 31, channels, 4});
  for (const char* order : {"reversed", "random", "cross", "padded", "groups", "ragged", "twice"}) {
    all.push_back({order, 130, 24, 4});
    all.push_back({order, 33, 5, 3, false, false});
  }
  for (auto type : {torch::kDouble, torch::kBFloat16, torch::kHalf})
    all.push_back({"random", 65, 24, 4, true, true, type});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Cpu, CausalConv1d, ::testing::ValuesIn(conv_cases()), [](const auto& of) {
  const auto& c = of.param;
  return c.order + "_T" + std::to_string(c.tokens) + "_D" + std::to_string(c.channels) + "_W" +
         std::to_string(c.width) + (c.optional_inputs ? "" : "_plain") + "_" +
         c10::toString(c.type);
});

TEST(CausalConv1dGradients, MatchDifferences) {
  torch::manual_seed(3);
  for (const char* name : {"padded", "ragged", "cross"}) {
    const auto order = make_test_order(name, 2, 6);
    const auto args = random_conv({name, 6, 3, 3, true, true, torch::kDouble}, order);
    expect_gradients(
        [&](const std::vector<Tensor>& in) {
          const auto made = causal_conv1d({in[0], in[1], in[2], in[3], true}, order, true);
          return std::vector<Tensor>{made.y, made.final_state};
        },
        {args.x, args.weight, args.bias, args.initial_state});
  }
}

TEST(CausalConv1dOrder, EqualsGatherThenConvolve) {
  torch::manual_seed(4);
  const auto order = make_test_order("random", 2, 50);
  const auto args = random_conv({"random", 50, 16, 4}, order);
  auto gathered = args;
  gathered.x = gather_rows(args.x, order);
  expect_equal(causal_conv1d(args, order).y, causal_conv1d(gathered, identity_order(50)).y);
}

TEST(CausalConv1dOrder, EqualsTorchConvolution) {
  torch::manual_seed(5);
  const auto x = torch::randn({2, 8, 40}), weight = torch::randn({8, 4}), bias = torch::randn({8});
  const auto padded = torch::constant_pad_nd(x, {3, 0});
  const auto expected =
      torch::silu(torch::conv1d(padded, weight.unsqueeze(1), bias, at::IntArrayRef{1},
                                at::IntArrayRef{0}, at::IntArrayRef{1}, 8));
  expect_close(causal_conv1d_fn(x, weight, bias, {}, false, true).out, expected, 5e-7);
}

TEST(CausalConv1dState, PiecesEqualTheWhole) {
  torch::manual_seed(6);
  const auto x = torch::randn({2, 8, 21}), weight = torch::randn({8, 4}), bias = torch::randn({8});
  const auto whole = causal_conv1d_fn(x, weight, bias, {}, true, true);
  Tensor state;
  std::vector<Tensor> outputs;
  for (const auto& piece : x.split_with_sizes({1, 2, 7, 11}, 2)) {  // some shorter than the state
    const auto made = causal_conv1d_fn(piece, weight, bias, state, true, true);
    outputs.push_back(made.out);
    state = made.final_states;
  }
  expect_equal(torch::cat(outputs, 2), whole.out);
  expect_equal(state, whole.final_states);
}

TEST(CausalConv1dState, UpdatesFollowTheWholeInBothKindsOfBuffer) {
  torch::manual_seed(7);
  const auto x = torch::randn({2, 8, 20}), weight = torch::randn({8, 4}), bias = torch::randn({8});
  const auto whole = causal_conv1d_fn(x, weight, bias, {}, false, true).out;
  auto shifted = torch::zeros({2, 8, 5}), circular = torch::zeros({2, 8, 5});
  for (int64_t t = 0; t < 20; t += 2) {
    const auto now = x.narrow(2, t, 2), seen = torch::full({2}, t, torch::kInt);
    expect_equal(causal_conv1d_update(now, shifted, weight, bias, true), whole.narrow(2, t, 2));
    expect_equal(causal_conv1d_update(now, circular, weight, bias, true, seen),
                 whole.narrow(2, t, 2));
  }
}

TEST(CausalConv1dState, VarlenStatesPadShortAndEmptySequences) {
  const auto x = torch::arange(1, 6, torch::kFloat).unsqueeze(1);
  const auto states =
      causal_conv1d_varlen_states(x, torch::tensor({0, 2, 2, 5}, torch::kInt), 3).squeeze(1);
  expect_equal(states, torch::tensor({{0.F, 1.F, 2.F}, {0.F, 0.F, 0.F}, {3.F, 4.F, 5.F}}));
}

TEST(CausalConv1dErrors, NameTheRuleAndWhatCame) {
  CausalConv1dArgs args;
  args.x = torch::zeros({1, 5, 3});
  args.weight = torch::zeros({1, 4, 4});
  const auto message = [&] {
    try {
      causal_conv1d(args, identity_order(5));
    } catch (const c10::Error& error) {
      return std::string(error.what_without_backtrace());
    }
    return std::string("no error");
  };
  EXPECT_NE(message().find("causal_conv1d: weight must be [K, D, W] = [1, 3, -1], got [1, 4, 4]"),
            std::string::npos)
      << message();
  args.weight = torch::zeros({1, 3, 8});
  EXPECT_NE(message().find("the width must be in 1..7, got 8"), std::string::npos) << message();
}

}  // namespace
}  // namespace serpentine::testing
