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

std::string case_name(const ::testing::TestParamInfo<ScanCase>& info) {
  return name_of(info.param);
}
INSTANTIATE_TEST_SUITE_P(Shapes, SelectiveScan, ::testing::ValuesIn(shape_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Orders, SelectiveScan, ::testing::ValuesIn(order_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Types, SelectiveScan, ::testing::ValuesIn(type_cases()), case_name);

}  // namespace
}  // namespace serpentine::testing
