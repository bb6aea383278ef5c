// What the scan promises beside its numbers: exact gradients, determinism, memory, clear errors.
#include <mutex>
#include <set>
#include <thread>

#include <hwy/targets.h>

#include "core/ops/counting_allocator.h"
#include "core/ops/parallel.h"
#include "core/ops/scan_cases.h"
#include "support/gradcheck.h"

namespace serpentine::testing {
namespace {

class SelectiveScanGradient : public ::testing::TestWithParam<ScanCase> {};

TEST_P(SelectiveScanGradient, EqualsFiniteDifferences) {
  const ScanCase& scan = GetParam();
  torch::manual_seed(3);
  const ScanOrder order = make_test_order(scan.order, scan.batch, scan.tokens);
  const SelectiveScanArgs args = random_args(scan, order);
  std::vector<torch::Tensor> inputs;
  for (const auto& tensor : operands_of(args)) inputs.push_back(tensor.clone());
  expect_gradients(
      [&](const std::vector<torch::Tensor>& operands) {
        const auto made =
            selective_scan(with_operands(args, operands), order, scan.rows, scan.merge, true);
        return std::vector<torch::Tensor>{made.y, made.final_state};
      },
      inputs);
}

std::vector<ScanCase> gradient_cases() {
  std::vector<ScanCase> all;
  const ScanCase tiny{
      .tokens = 5, .channels = 3, .states = 2, .initial_state = true, .type = torch::kDouble};
  for (const char* order : {"identity", "random", "cross", "padded", "groups", "ragged", "twice"}) {
    for (const Rows rows : {Rows::kToken, Rows::kPosition}) {
      ScanCase scan = tiny;
      scan.order = order;
      scan.rows = rows;
      all.push_back(scan);
    }
  }
  for (const Merge merge : {Merge::kMean, Merge::kConcat}) {
    ScanCase scan = tiny;
    scan.order = "cross";
    scan.merge = merge;
    all.push_back(scan);
  }
  ScanCase chunks = tiny;  // three chunks of saved states
  chunks.batch = 1, chunks.tokens = 135, chunks.channels = 1, chunks.states = 1;
  all.push_back(chunks);
  return all;
}

std::string property_case_name(const ::testing::TestParamInfo<ScanCase>& info) {
  return name_of(info.param);
}
INSTANTIATE_TEST_SUITE_P(Double, SelectiveScanGradient, ::testing::ValuesIn(gradient_cases()),
                         property_case_name);

const ScanCase kWide{.tokens = 150, .channels = 192, .initial_state = true};

TEST(SelectiveScanPromise, IdentityOrderEqualsAnIndex) {
  ScanCase scan = kWide;
  for (const Rows rows : {Rows::kToken, Rows::kPosition}) {
    scan.rows = rows;
    torch::manual_seed(4);
    const ScanOrder plain = identity_order(scan.tokens);
    const ScanOrder indexed = make_order(plain.tokens, plain.offsets, plain.branch, scan.tokens);
    ASSERT_TRUE(plain.identity && !indexed.identity);
    const SelectiveScanArgs args = random_args(scan, plain);
    expect_same(run_scan(selective_scan, args, indexed, scan),
                run_scan(selective_scan, args, plain, scan));
  }
}

/// Without OpenMP's flag LibTorch's loops silently run on one thread.
TEST(SelectiveScanPromise, ThreadsAreUsed) {
  const int threads = torch::get_num_threads();
  torch::set_num_threads(2);
  std::set<std::thread::id> seen;
  std::mutex mutex;
  parallel_for(0, 2, 1, [&](int64_t, int64_t) {
    const std::lock_guard<std::mutex> lock(mutex);
    seen.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(seen.size(), 2u);
  torch::set_num_threads(threads);
}

TEST(SelectiveScanPromise, RunsAndThreadCountsAgreeBitForBit) {
  const int threads = torch::get_num_threads();
  for (const auto& [name, states] :
       {std::pair{"identity", 16}, {"cross", 16}, {"ragged", 16}, {"identity", 1}, {"cross", 2}}) {
    ScanCase scan = kWide;
    scan.order = name;
    scan.states = states;
    torch::manual_seed(5);
    const ScanOrder order = make_test_order(name, scan.batch, scan.tokens);
    SelectiveScanArgs args = random_args(scan, order);
    args.delta = args.delta * 8;  // some of them beyond the table of softplus
    torch::set_num_threads(1);
    const ScanRun first = run_scan(selective_scan, args, order, scan);
    expect_same(run_scan(selective_scan, args, order, scan), first);
    for (const int count : {2, 3}) {
      torch::set_num_threads(count);
      expect_same(run_scan(selective_scan, args, order, scan), first);
    }
  }
  torch::set_num_threads(threads);
}

/// Every instruction set of this machine, not only the best.
class InstructionSets : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(States, InstructionSets, ::testing::Values(1, 2, 7));

TEST_P(InstructionSets, Agree) {
  torch::manual_seed(6);
  const ScanCase scan{.order = "cross", .tokens = 70, .channels = 40, .states = GetParam()};
  const ScanOrder order = make_test_order(scan.order, scan.batch, scan.tokens);
  const SelectiveScanArgs args = random_args(scan, order);
  const ScanRun best = run_scan(selective_scan, args, order, scan);
  const int64_t supported = hwy::SupportedTargets();
  for (int64_t rest = supported; rest != 0; rest &= rest - 1) {
    hwy::SetSupportedTargetsForTest(rest);
    const ScanRun run = run_scan(selective_scan, args, order, scan);
    for (size_t i = 0; i < run.values.size(); ++i) {
      EXPECT_TRUE(is_close_max(run.values[i], best.values[i], 1e-5))
          << run.names[i] << ", targets " << rest;
    }
  }
  hwy::SetSupportedTargetsForTest(0);
}

/// Peak bytes of tensors made by forward and backward, over the bytes of [B, P, D].
double peak_of(ScanFunction function, const ScanCase& scan) {
  const ScanOrder order = make_test_order(scan.order, scan.batch, scan.tokens);
  SelectiveScanArgs args = random_args(scan, order);
  std::vector<torch::Tensor> leaves;
  for (const auto& tensor : operands_of(args))
    leaves.push_back(tensor.detach().requires_grad_(true));
  const CountingAllocator counter;
  const auto y = function(with_operands(args, leaves), order, scan.rows, scan.merge, false).y;
  const auto grads = torch::autograd::grad({y.sum()}, leaves);
  return static_cast<double>(counter.peak()) /
         static_cast<double>(4 * scan.batch * order.num_positions() * scan.channels);
}

TEST(SelectiveScanPromise, MemoryIsAFewTimesTheRows) {
  const ScanCase plain{
      .batch = 1, .tokens = 512, .channels = 128, .states = 16, .rows = Rows::kPosition};
  const double bound = 7;  // y and its gradient, du, ddelta, dB and dC, saved states, A's sums
  EXPECT_LE(peak_of(selective_scan, plain), bound);
  EXPECT_GT(peak_of(selective_scan_reference, plain), 16);  // the count does see a B L D N tensor
  ScanCase cross = plain;
  cross.order = "cross";
  cross.rows = Rows::kToken;
  EXPECT_LE(peak_of(selective_scan, cross), bound);
  ScanCase states = plain;
  states.states = 256, states.channels = 512, states.tokens = 1024;
  EXPECT_LE(peak_of(selective_scan, states), bound);
}

/// Results of 2 MiB and more, steps of 8 MiB, are written past the caches; the bits are those of
/// smaller ones.
TEST(SelectiveScanPromise, LargeResultsHaveTheBitsOfSmallOnes) {
  for (const int64_t states : {1, 2}) {
    const int64_t tokens = 1100, channels = 2048, few = 256;
    const ScanCase large{.batch = 1, .tokens = tokens, .channels = channels, .states = states};
    for (const char* name : {"identity", "padded"}) {
      torch::manual_seed(6);
      const ScanOrder order = make_test_order(name, 1, tokens);
      const SelectiveScanArgs args = random_args(large, order);
      SelectiveScanArgs part = args;
      part.u = args.u.narrow(2, 0, few);
      part.delta = args.delta.narrow(3, 0, few);
      part.A = args.A.narrow(1, 0, few).contiguous();
      part.D = args.D.narrow(1, 0, few).contiguous();
      part.delta_bias = args.delta_bias.narrow(1, 0, few).contiguous();
      const auto run = [&](SelectiveScanArgs of) {
        of.u = of.u.detach().requires_grad_();
        of.delta = of.delta.detach().requires_grad_();
        const auto y = selective_scan(of, order).y;
        auto made = torch::autograd::grad({y.square().sum()}, {of.u, of.delta});
        made.push_back(y.detach());
        return made;
      };
      const auto whole = run(args), first = run(part);
      for (size_t i = 0; i < first.size(); ++i)
        expect_equal(whole[i].narrow(-1, 0, few), first[i], name);
    }
  }
}

TEST(SelectiveScanPromise, DecaysToZeroAndSurvivesExtremes) {
  const ScanOrder order = identity_order(4);
  for (const auto& [channels, states] : {std::pair<int64_t, int64_t>{3, 2}, {64, 1}, {48, 2}}) {
    SelectiveScanArgs args =
        random_args({.batch = 1, .tokens = 4, .channels = channels, .states = states}, order);
    args.delta = torch::tensor({-200.0f, 200.0f, 25.0f, -30.0f})
                     .view({1, 4, 1, 1})
                     .expand({1, 4, 1, channels});
    args.A = torch::full({1, channels, states}, -50.0f);
    const auto actual = selective_scan(args, order, Rows::kToken, Merge::kSum, true);
    const auto expected = selective_scan_reference(args, order, Rows::kToken, Merge::kSum, true);
    EXPECT_TRUE(is_close_max(actual.y, expected.y, 1e-6));
    EXPECT_TRUE(is_close_max(actual.final_state, expected.final_state, 1e-6));
    args.u[0][1][1] = NAN;
    const auto y = selective_scan(args, order).y;
    EXPECT_TRUE(torch::isnan(y[0][1][1]).item<bool>());
    EXPECT_TRUE(torch::isfinite(y.select(2, 0)).all().item<bool>());
    args.u = torch::ones_like(args.u);
    args.delta = args.delta.clone();
    args.delta[0][2][0][0] = NAN;
    const auto poisoned = selective_scan(args, order).y;
    EXPECT_TRUE(torch::isnan(poisoned[0][2][0]).item<bool>());
    EXPECT_TRUE(torch::isfinite(poisoned.narrow(2, 1, channels - 1)).all().item<bool>());
  }
}

/// From far below to far above: as exact as double says, wherever a piece of the curve ends.
TEST(SelectiveScanPromise, StepsAreExactOverTheWholeRange) {
  const int64_t tokens = 4000, channels = 16;
  const ScanOrder order = identity_order(tokens);
  SelectiveScanArgs args = random_args(
      {.batch = 1, .tokens = tokens, .channels = channels, .states = 1, .optional_inputs = false},
      order);
  args.A = torch::full({1, channels, 1}, -1e30f);  // forgets at once: y is the step
  args.u = torch::ones_like(args.u);
  args.B = torch::ones_like(args.B);
  args.C = torch::ones_like(args.C);
  args.delta = torch::linspace(-40, 40, tokens * channels).view_as(args.delta);
  const auto y = selective_scan(args, order).y.to(torch::kDouble).flatten();
  const auto expected = torch::log1p(torch::exp(args.delta.to(torch::kDouble))).flatten();
  const auto error = ((y - expected) / expected).abs();
  EXPECT_LT(error.masked_select(args.delta.flatten().abs() < 15.5).max().item<double>(), 2.5e-7);
  EXPECT_LT(error.max().item<double>(), 3e-6);
}

/// A decay of 1 - 1e-6 a step must not lose its last digits, or the error grows with the length.
TEST(SelectiveScanPromise, SlowDecaysDoNotDrift) {
  const int64_t tokens = 20000;
  const ScanOrder order = identity_order(tokens);
  SelectiveScanArgs args = random_args(
      {.batch = 1, .tokens = tokens, .channels = 16, .states = 1, .optional_inputs = false}, order);
  args.A = torch::full({1, 16, 1}, -1e-6f);
  args.delta = torch::ones_like(args.delta);
  args.delta_softplus = false;
  args.u = torch::ones_like(args.u);
  args.B = torch::ones_like(args.B);
  args.C = torch::ones_like(args.C);
  const double kept = static_cast<float>(std::exp(-1e-6));
  const double expected = (1 - std::pow(kept, tokens)) / (1 - kept);
  const auto y = selective_scan(args, order).y[0][tokens - 1];
  EXPECT_LT((y.to(torch::kDouble) / expected - 1).abs().max().item<double>(), 5e-5);
}

TEST(SelectiveScanPromise, SaysWhatIsWrong) {
  const ScanOrder order = identity_order(4);
  SelectiveScanArgs args =
      random_args({.batch = 2, .tokens = 4, .channels = 3, .states = 2}, order);
  args.delta = torch::zeros({2, 4, 3});
  try {
    selective_scan(args, order);
    FAIL() << "a wrong shape was accepted";
  } catch (const c10::Error& error) {
    EXPECT_EQ(std::string(error.what_without_backtrace()),
              "selective_scan: delta must be [B, T, K, D] = [2, 4, 1, 3], got [2, 4, 3]");
  }
}

}  // namespace
}  // namespace serpentine::testing
