// The CPU scan against its definition, over orders, shapes, types and merges.
#include "core/ops/selective_scan.h"

#include "core/ops/scan_cases.h"
#include "support/close.h"

namespace serpentine::testing {
namespace {

class SelectiveScan : public ::testing::TestWithParam<ScanCase> {};

// Largest error over largest magnitude. The 16-bit types round outputs and gradients once.
double tolerance(at::ScalarType type, bool gradient) {
  switch (type) {
    case torch::kDouble:
      return 1e-11;
    case torch::kBFloat16:
      return 8e-3;
    case torch::kHalf:
      return 1e-3;
    default:
      return gradient ? 2e-5 : 1e-5;
  }
}

TEST_P(SelectiveScan, MatchesReference) {
  const ScanCase& scan = GetParam();
  torch::manual_seed(1);
  const ScanOrder order = make_test_order(scan.order, scan.batch, scan.tokens);
  const SelectiveScanArgs args = random_args(scan, order);
  const ScanRun actual = run_scan(selective_scan, args, order, scan);
  const ScanRun expected = run_scan(selective_scan_reference, args, order, scan);
  for (size_t i = 0; i < actual.values.size(); ++i) {
    EXPECT_EQ(actual.values[i].dtype(), expected.values[i].dtype()) << actual.names[i];
    EXPECT_TRUE(is_close_max(actual.values[i], expected.values[i], tolerance(scan.type, i >= 2)))
        << actual.names[i];
  }

  // without gradients another path runs: same numbers, bit for bit
  const auto result = selective_scan(args, order, scan.rows, scan.merge, true);
  expect_equal(result.y, actual.values[0]);
  expect_equal(result.final_state, actual.values[1]);
  EXPECT_FALSE(selective_scan(args, order, scan.rows, scan.merge).final_state.defined());
}

std::vector<ScanCase> shapes() {
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

std::vector<ScanCase> orders() {
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

std::vector<ScanCase> types() {
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
  for (const bool softplus : {false, true}) {
    all.push_back({.order = "groups", .optional_inputs = false, .softplus = softplus});
  }
  return all;
}

std::string case_name(const ::testing::TestParamInfo<ScanCase>& info) {
  return name_of(info.param);
}
INSTANTIATE_TEST_SUITE_P(Shapes, SelectiveScan, ::testing::ValuesIn(shapes()), case_name);
INSTANTIATE_TEST_SUITE_P(Orders, SelectiveScan, ::testing::ValuesIn(orders()), case_name);
INSTANTIATE_TEST_SUITE_P(Types, SelectiveScan, ::testing::ValuesIn(types()), case_name);

}  // namespace
}  // namespace serpentine::testing
