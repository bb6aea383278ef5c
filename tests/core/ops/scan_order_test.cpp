// Orders, their algebra, and the two row primitives.
#include "core/scan_order.h"

#include "core/kept_tables.h"

#include "core/ops/merge.h"
#include "core/ops/scan_cases.h"
#include "support/gradcheck.h"

namespace serpentine::testing {
namespace {

torch::Tensor ints(at::ArrayRef<int64_t> values) { return torch::tensor(values).to(torch::kInt); }

TEST(ScanOrder, DerivesVisitsInOrderOfPositions) {
  const ScanOrder order = make_order(ints({2, -1, 0, 2, 1}), ints({0, 3, 5}), ints({0, 1}), 4);
  EXPECT_EQ(order.num_positions(), 5);
  EXPECT_EQ(order.num_branches, 2);
  EXPECT_TRUE(order.visits.equal(ints({2, -1, 4, -1, 0, 3, -1, -1}).view({4, 2}))) << order.visits;
}

TEST(ScanOrder, DerivesVisitsOfEachSample) {
  const ScanOrder order = make_order(ints({1, 0, 0, 1}).view({2, 2}), ints({0, 2}), ints({0}), 2);
  EXPECT_TRUE(order.visits.equal(ints({1, 0, 0, 1}).view({2, 2, 1}))) << order.visits;
}

TEST(ScanOrder, ReversesEachSequence) {
  const ScanOrder order =
      reversed(make_order(ints({0, 1, 2, 3, -1}), ints({0, 2, 2, 5}), ints({0, 0, 1}), 4));
  EXPECT_TRUE(order.tokens.equal(ints({1, 0, -1, 3, 2})));
  EXPECT_TRUE(order.visits.equal(ints({1, 0, 4, 3}).view({4, 1}))) << order.visits;
  EXPECT_TRUE(reversed(order).tokens.equal(ints({0, 1, 2, 3, -1})));
}

TEST(ScanOrder, StacksAndKeepsBranches) {
  const ScanOrder row = identity_order(3), both = stack({row, reversed(row)});
  const ScanOrder order = stack({both, row});
  EXPECT_EQ(order.num_branches, 3);
  EXPECT_EQ(order.num_visits(), 3);
  EXPECT_TRUE(order.branch.equal(ints({0, 1, 2})));
  EXPECT_TRUE(order.offsets.equal(ints({0, 3, 6, 9})));
  EXPECT_TRUE(order.tokens.equal(ints({0, 1, 2, 2, 1, 0, 0, 1, 2})));
  EXPECT_THROW(stack({row, identity_order(4)}), c10::Error);
}

TEST(ScanOrder, RelabelsTokensNotPads) {
  const ScanOrder order = make_order(ints({0, -1, 2, 1}), ints({0, 4}), ints({0}), 3);
  EXPECT_TRUE(relabeled(order, ints({1, 2, 0})).tokens.equal(ints({1, -1, 0, 2})));
  const ScanOrder own = relabeled(order, ints({1, 2, 0, 0, 1, 2}).view({2, 3}));
  EXPECT_TRUE(own.tokens.equal(ints({1, -1, 0, 2, 0, -1, 2, 1}).view({2, 4})));
  EXPECT_EQ(own.visits.sizes(), (std::vector<int64_t>{2, 3, 1}));
}

TEST(ScanOrder, SplitsSequencesAndKeepsEmptyOnes) {
  const ScanOrder order =
      split(make_order(ints({0, 1, 2, 3, 4}), ints({0, 3, 3, 5}), ints({0, 0, 1}), 5), 2);
  EXPECT_TRUE(order.offsets.equal(ints({0, 2, 3, 3, 5})));
  EXPECT_TRUE(order.branch.equal(ints({0, 0, 0, 1})));
}

TEST(ScanOrder, KnowsWhereEveryBranchVisitsEveryTokenOnce) {
  const ScanOrder row = identity_order(3);
  const ScanOrder both = stack({row, reversed(row)});
  EXPECT_TRUE(row.complete && reversed(row).complete && both.complete &&
              stack({both, row}).complete);
  EXPECT_TRUE(relabeled(both, ints({1, 2, 0})).complete && split(both, 2).complete);
  const auto order = [](at::ArrayRef<int64_t> tokens, at::ArrayRef<int64_t> offsets,
                        at::ArrayRef<int64_t> branch) {
    return make_order(ints(tokens), ints(offsets), ints(branch), 2);
  };
  EXPECT_TRUE(order({1, 0, 0, 1}, {0, 2, 4}, {0, 1}).complete);
  EXPECT_FALSE(order({1, 0, -1}, {0, 3}, {0}).complete);          // a pad
  EXPECT_FALSE(order({0, 0, 1, 1}, {0, 2, 4}, {0, 1}).complete);  // twice in one branch
  EXPECT_FALSE(order({0, 1, 0, 1}, {0, 4}, {0}).complete);        // two visits, one branch
  EXPECT_FALSE(order({0, 1, 1, 0}, {0, 1, 4}, {0, 1}).complete);  // branches of unequal length
  EXPECT_FALSE(order({0, 1}, {0, 1, 2}, {0, 1}).complete);        // groups
  const ScanOrder padded = make_order(ints({2, 1, 0, -1}), ints({0, 4}), ints({0}), 3);
  EXPECT_FALSE(stack({row, padded}).complete);
}

TEST(ScanOrder, KeepsIdentityOrdersThatTrainingMayUse) {
  ScanOrder first;
  {
    const c10::InferenceMode inference;
    first = identity_order(1234);
  }
  EXPECT_FALSE(first.tokens.is_inference());
  EXPECT_TRUE(identity_order(1234).tokens.is_same(first.tokens));
  for (int64_t tokens = 0; tokens < 20; ++tokens) {
    const ScanOrder order = identity_order(tokens);
    EXPECT_EQ(order.num_tokens, tokens);
    EXPECT_TRUE(order.offsets.equal(ints({0, tokens})));
  }
  EXPECT_THROW(identity_order(-1), c10::Error);
}

TEST(ScanOrder, RefusesNonsense) {
  const auto tokens = ints({0, 1, 2});
  EXPECT_THROW(make_order(ints({0, 1, 3}), ints({0, 3}), ints({0}), 3), c10::Error);
  EXPECT_THROW(make_order(ints({0, 1, -2}), ints({0, 3}), ints({0}), 3), c10::Error);
  EXPECT_THROW(make_order(tokens, ints({0, 2}), ints({0}), 3), c10::Error);
  EXPECT_THROW(make_order(tokens, ints({0, 2, 1, 3}), ints({0, 0, 0}), 3), c10::Error);
  EXPECT_THROW(make_order(tokens, ints({0, 1, 3}), ints({1, 0}), 3), c10::Error);
  EXPECT_THROW(make_order(tokens, ints({0, 1, 3}), ints({0, 2}), 3), c10::Error);
  EXPECT_THROW(make_order(tokens, ints({0, 3}), ints({-1}), 3), c10::Error);
  EXPECT_THROW(make_order(tokens.to(torch::kFloat), ints({0, 3}), ints({0}), 3), c10::Error);
}

/// One visit a token is written where it belongs; counted ones are sorted.
TEST(ScanOrder, OneVisitIsFoundAsCountedOnesAre) {
  for (const auto& tokens : {ints({2, -1, 0, 4, -1}), ints({3, 1, 2, 0}),
                             torch::stack({ints({1, -1, 0}), ints({-1, 2, 1})})}) {
    const int64_t positions = tokens.size(-1);
    const auto made = [&](int64_t visits) {
      return make_order(tokens, ints({0, positions}), ints({0}), 5, visits).visits;
    };
    EXPECT_TRUE(made(1).equal(made(-1))) << tokens;
    EXPECT_EQ(made(1).scalar_type(), torch::kInt);
  }
}

TEST(ScanOrder, KeepsItsTablesWhereTheyCanBeHeld) {
  const ScanOrder order = identity_order(777);
  bool held = false;
  for (const auto& table : kept_tables()) held = held || table.is_same(order.tokens);
  EXPECT_TRUE(held);
}

TEST(Rows, GatherReadsZerosAtPads) {
  const ScanOrder order = make_order(ints({1, -1, 0, 1}), ints({0, 4}), ints({0}), 3);
  const auto x = torch::arange(6, torch::kFloat).view({1, 3, 2});
  expect_equal(gather_rows(x, order),
               torch::tensor({2.f, 3.f, 0.f, 0.f, 0.f, 1.f, 2.f, 3.f}).view({1, 4, 2}));
}

TEST(Rows, MergeCountsRealVisits) {
  const ScanOrder order = make_order(ints({1, -1, 0, 1}), ints({0, 4}), ints({0}), 3);
  const auto x = torch::arange(4, torch::kFloat).view({1, 4, 1}) + 1;
  expect_equal(merge_rows(x, order, Merge::kSum).flatten(), torch::tensor({3.f, 5.f, 0.f}));
  expect_equal(merge_rows(x, order, Merge::kMean).flatten(), torch::tensor({3.f, 2.5f, 0.f}));
  expect_equal(merge_rows(x, order, Merge::kConcat).flatten(),
               torch::tensor({3.f, 0.f, 1.f, 4.f, 0.f, 0.f}));
}

TEST(Rows, GradientsEqualFiniteDifferences) {
  for (const char* name : {"random", "cross", "padded", "groups", "twice"}) {
    const ScanOrder order = make_test_order(name, 2, 6);
    expect_gradients(
        [&](const auto& in) { return std::vector<torch::Tensor>{gather_rows(in[0], order)}; },
        {torch::randn({2, 6, 2}, torch::kDouble)});
    for (const Merge merge : {Merge::kSum, Merge::kMean, Merge::kConcat}) {
      expect_gradients(
          [&](const auto& in) {
            return std::vector<torch::Tensor>{merge_rows(in[0], order, merge)};
          },
          {torch::randn({2, order.num_positions(), 2}, torch::kDouble)});
    }
  }
}

}  // namespace
}  // namespace serpentine::testing
