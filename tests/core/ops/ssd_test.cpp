// State space duality against its definition, and what it promises beside its numbers.
#include "core/ops/ssd.h"

#include <gtest/gtest.h>

#include "core/ops/counting_allocator.h"
#include "core/ops/ssd_cases.h"
#include "core/ops/ssd_chunks.h"
#include "core/ops/ssd_published.h"
#include "support/gradcheck.h"

namespace serpentine::testing {
namespace {

class SsdDefinition : public ::testing::TestWithParam<SsdCase> {};

/// Against the definition in double precision: worst measured 1.4e-6 in float32.
TEST_P(SsdDefinition, AgreesWithIt) {
  const SsdCase& of = GetParam();
  torch::manual_seed(1);
  const ScanOrder order = make_test_order(of.order, of.batch, of.tokens);
  const SsdArgs args = random_args(of, order);
  const ScanRun actual = run_ssd(ssd, args, order, of);
  const ScanRun expected = run_ssd(ssd_reference, move_to(args, torch::kCPU, true), order, of);
  ASSERT_EQ(actual.names, expected.names);
  const double tolerance = of.type == torch::kDouble     ? 1e-12
                           : of.type == torch::kFloat    ? 4e-6
                           : of.type == torch::kBFloat16 ? 8e-3
                                                         : 1e-3;
  for (size_t i = 0; i < actual.values.size(); ++i) {
    EXPECT_TRUE(is_close_max(actual.values[i], expected.values[i], tolerance)) << actual.names[i];
  }
  EXPECT_EQ(actual.values[0].scalar_type(), of.type);
}

INSTANTIATE_TEST_SUITE_P(, SsdDefinition, ::testing::ValuesIn(ssd_cases()),
                         [](const auto& one) { return name_of(one.param); });

TEST(Ssd, GradientsEqualFiniteDifferences) {
  for (const char* name : {"identity", "random", "cross", "padded", "ragged", "twice"}) {
    const SsdCase tiny{.order = name,
                       .tokens = 7,
                       .heads = 2,
                       .channels = 2,
                       .groups = 1,
                       .states = 2,
                       .chunk = 3,
                       .initial_state = true,
                       .type = torch::kDouble};
    torch::manual_seed(2);
    const ScanOrder order = make_test_order(name, tiny.batch, tiny.tokens);
    const SsdArgs args = random_args(tiny, order);
    std::vector<torch::Tensor> inputs;
    for (const auto& tensor : operands_of(args)) inputs.push_back(tensor.clone());
    expect_gradients(
        [&](const std::vector<torch::Tensor>& operands) {
          const auto made = ssd(with_operands(args, operands), order, tiny.rows, tiny.merge, true);
          return std::vector<torch::Tensor>{made.y, made.final_state};
        },
        inputs);
  }
}

TEST(Ssd, ChunksChangeRoundingsOnly) {
  SsdCase of{.order = "ragged", .tokens = 61, .initial_state = true, .type = torch::kDouble};
  torch::manual_seed(3);
  const ScanOrder order = make_test_order(of.order, of.batch, of.tokens);
  SsdArgs args = random_args(of, order);
  const ScanRun whole = run_ssd(ssd, args, order, of);
  for (const int64_t chunk : {1, 2, 7, 60, 61, 1000, 0}) {
    args.chunk = chunk;
    const ScanRun run = run_ssd(ssd, args, order, of);
    for (size_t i = 0; i < run.values.size(); ++i) {
      EXPECT_TRUE(is_close_max(run.values[i], whole.values[i], 1e-12)) << chunk << run.names[i];
    }
  }
}

TEST(Ssd, RaggedSequencesAreSeparateOnes) {
  const SsdCase of{.batch = 1, .tokens = 50, .rows = Rows::kPosition, .type = torch::kDouble};
  torch::manual_seed(4);
  const std::vector<int64_t> cuts{0, 3, 3, 30, 31, 50, 50};
  const SsdArgs args = random_args(of, identity_order(50));
  const auto order = ragged_order(torch::tensor(cuts, torch::kInt));
  const auto together = ssd(args, order, of.rows, of.merge, true);
  for (size_t s = 0; s + 1 < cuts.size(); ++s) {
    const int64_t from = cuts[s], count = cuts[s + 1] - from;
    SsdArgs part = args;
    for (auto* rows : {&part.x, &part.dt, &part.B, &part.C}) *rows = rows->narrow(1, from, count);
    const auto alone = ssd(part, identity_order(count), of.rows, of.merge, true);
    if (count > 0) {
      EXPECT_TRUE(is_close_max(together.y.narrow(1, from, count), alone.y, 1e-13));
    }
    EXPECT_TRUE(is_close_max(together.final_state.select(1, static_cast<int64_t>(s)),
                             alone.final_state.select(1, 0), 1e-13));
  }
}

TEST(Ssd, IdentityOrderEqualsAnIndexBitForBit) {
  for (const Rows rows : {Rows::kToken, Rows::kPosition}) {
    const SsdCase of{.tokens = 77, .rows = rows, .initial_state = true};
    torch::manual_seed(5);
    const ScanOrder plain = identity_order(of.tokens);
    const ScanOrder indexed = make_order(plain.tokens, plain.offsets, plain.branch, of.tokens);
    ASSERT_TRUE(plain.identity && !indexed.identity);
    const SsdArgs args = random_args(of, plain);
    expect_same(run_ssd(ssd, args, indexed, of), run_ssd(ssd, args, plain, of));
  }
}

TEST(Ssd, RunsAgreeBitForBit) {
  for (const char* name : {"identity", "cross", "ragged"}) {
    const SsdCase of{.order = name, .tokens = 150, .heads = 8, .channels = 32, .states = 32};
    torch::manual_seed(6);
    const ScanOrder order = make_test_order(name, of.batch, of.tokens);
    const SsdArgs args = random_args(of, order);
    expect_same(run_ssd(ssd, args, order, of), run_ssd(ssd, args, order, of));
  }
}

TEST(Ssd, EmptySequencesKeepTheirState) {
  const SsdCase of{.tokens = 0, .initial_state = true};
  const SsdArgs args = random_args(of, identity_order(0));
  const auto made = ssd(args, identity_order(0), of.rows, of.merge, true);
  EXPECT_EQ(made.y.sizes(), at::IntArrayRef({2, 0, 4, 5}));
  expect_equal(made.final_state, args.initial_state);
}

TEST(Ssd, ContinuesFromItsFinalState) {
  const SsdCase of{.tokens = 40, .rows = Rows::kPosition, .type = torch::kDouble};
  torch::manual_seed(7);
  const SsdArgs args = random_args(of, identity_order(40));
  const auto whole = ssd(args, identity_order(40), of.rows, of.merge, true);
  at::Tensor state;
  for (const auto& [from, count] :
       std::vector<std::pair<int64_t, int64_t>>{{0, 1}, {1, 22}, {23, 17}}) {
    SsdArgs part = args;
    for (auto* rows : {&part.x, &part.dt, &part.B, &part.C}) *rows = rows->narrow(1, from, count);
    part.initial_state = state;
    const auto made = ssd(part, identity_order(count), of.rows, of.merge, true);
    state = made.final_state;
    EXPECT_TRUE(is_close_max(made.y, whole.y.narrow(1, from, count), 1e-13));
  }
  EXPECT_TRUE(is_close_max(state, whole.final_state, 1e-13));
}

/// Other rows, sequences and samples must not see a value that is not a number.
TEST(Ssd, NotANumberStaysInItsSequence) {
  const SsdCase of{.batch = 1, .tokens = 50, .rows = Rows::kPosition, .optional_inputs = false};
  SsdArgs args = random_args(of, identity_order(50));
  args.x[0][10].fill_(NAN);
  const auto order = ragged_order(torch::tensor({0, 5, 20, 50}, torch::kInt));
  const auto y = ssd(args, order, of.rows).y;
  EXPECT_TRUE(torch::isfinite(y.narrow(1, 0, 5)).all().item<bool>());
  EXPECT_TRUE(torch::isfinite(y.narrow(1, 20, 30)).all().item<bool>());
  EXPECT_TRUE(torch::isnan(y[0][12]).all().item<bool>());
}

/// A very fast decay leaves nothing, and its exponentials stay finite.
TEST(Ssd, SurvivesExtremeDecays) {
  const SsdCase of{.tokens = 64, .rows = Rows::kPosition};
  SsdArgs args = random_args(of, identity_order(64));
  args.A = torch::full_like(args.A, -500);
  const auto run = run_ssd(ssd, args, identity_order(64), of);
  for (const auto& value : run.values) {
    EXPECT_TRUE(torch::isfinite(value).all().item<bool>());
  }
}

/// Peak bytes of tensors made by forward and backward, over the bytes of x.
double peak_of(SsdFunction function, const SsdCase& of) {
  const ScanOrder order = make_test_order(of.order, of.batch, of.tokens);
  const SsdArgs args = random_args(of, order);
  std::vector<torch::Tensor> leaves;
  for (const auto& tensor : operands_of(args))
    leaves.push_back(tensor.detach().requires_grad_(true));
  const CountingAllocator counter;
  const auto y = function(with_operands(args, leaves), order, of.rows, of.merge, false).y;
  const auto grads = torch::autograd::grad({y.sum()}, leaves);
  return static_cast<double>(counter.peak()) / static_cast<double>(4 * args.x.numel());
}

TEST(Ssd, MemoryIsAFewTimesTheRows) {
  const SsdCase of{.batch = 1,
                   .tokens = 4096,
                   .heads = 8,
                   .channels = 64,
                   .groups = 1,
                   .states = 64,
                   .chunk = 0,
                   .rows = Rows::kPosition};
  const double one = peak_of(ssd, of);
  EXPECT_LE(one, 9);
  SsdCase longer = of;
  longer.tokens *= 2;
  EXPECT_LE(peak_of(ssd, longer), one * 1.05);  // in proportion to the length
  SsdCase reference = of;
  reference.tokens = 256;
  EXPECT_GT(peak_of(ssd_reference, reference), 64);  // the count does see a state a token
}

/// The walk for GPUs, on this device.
TEST(Ssd, BlocksPassTheSameStates) {
  torch::manual_seed(9);
  for (const int64_t steps : {9, 10, 16, 17, 50}) {
    const ChunkPlan plan = make_chunk_plan(
        ragged_order(torch::tensor({0L, 4 * steps, 8 * steps}, torch::kInt)), 4, torch::kCPU);
    ASSERT_EQ(static_cast<int64_t>(plan.active.size()), steps);
    const auto sums = torch::randn({2, plan.chunks, 3, 5}, torch::kDouble);
    const auto decay = torch::rand({2, plan.chunks, 3, 1}, torch::kDouble);
    const auto start = torch::randn({2, 2, 3, 5}, torch::kDouble);
    for (const auto direction : {Direction::kForward, Direction::kBackward}) {
      auto stepped = sums.clone(), blocked = sums.clone();
      const auto end = pass_states(stepped, decay, start, plan, direction, false);
      EXPECT_TRUE(
          is_close_max(pass_states(blocked, decay, start, plan, direction, true), end, 1e-14));
      EXPECT_TRUE(is_close_max(blocked, stepped, 1e-14)) << steps;
    }
  }
}

TEST(Ssd, SaysWhatIsWrong) {
  const SsdCase of{.tokens = 4};
  const ScanOrder order = identity_order(4);
  SsdArgs args = random_args(of, order);
  args.dt = torch::zeros({2, 4, 4});
  try {
    ssd(args, order);
    FAIL() << "a wrong shape was accepted";
  } catch (const c10::Error& error) {
    EXPECT_EQ(std::string(error.what_without_backtrace()),
              "ssd: dt must be [B, T, K, H] = [2, 4, 1, 4], got [2, 4, 4]");
  }
  args = random_args(of, order);
  args.log_decay = args.dt;
  EXPECT_THROW(ssd(args, order), c10::Error);
  SsdCase uneven = of;
  uneven.heads = 5;
  EXPECT_THROW(ssd(random_args(uneven, order), order), c10::Error);
}

/// Many rows with runs of their own, as published: each run alone.
TEST(SsdPublished, SequenceNumbersOfSeveralRows) {
  torch::manual_seed(8);
  ChunkScanArgs args;
  args.x = torch::randn({2, 20, 2, 3}, torch::kDouble);
  args.dt = torch::rand({2, 20, 2}, torch::kDouble);
  args.A = -torch::rand({2}, torch::kDouble);
  args.B = torch::randn({2, 20, 1, 4}, torch::kDouble);
  args.C = torch::randn({2, 20, 1, 4}, torch::kDouble);
  args.seq_idx = torch::zeros({2, 20}, torch::kInt);
  args.seq_idx.slice(1, 7).fill_(1);
  args.seq_idx[1].slice(0, 15).fill_(2);
  const auto together = mamba_chunk_scan_combined(args);
  for (const auto& [row, from, to] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
           {0, 0, 7}, {0, 7, 20}, {1, 0, 7}, {1, 7, 15}, {1, 15, 20}}) {
    ChunkScanArgs part = args;
    part.seq_idx = at::Tensor();
    for (auto* rows : {&part.x, &part.dt, &part.B, &part.C}) {
      *rows = rows->narrow(0, row, 1).slice(1, from, to);
    }
    const auto alone = mamba_chunk_scan_combined(part);
    EXPECT_TRUE(is_close_max(together.out.narrow(0, row, 1).slice(1, from, to), alone.out, 1e-13));
    if (to == 20) {
      EXPECT_TRUE(is_close_max(together.final_states[row], alone.final_states[0], 1e-13));
    }
  }
}

}  // namespace
}  // namespace serpentine::testing
