// State space duality on a GPU against its definition in float64 on the CPU.
#include <gtest/gtest.h>

#include "core/ops/ssd_cases.h"
#include "support/close.h"
#include "support/cuda.h"

namespace serpentine::testing {
namespace {

class SsdCuda : public ::testing::TestWithParam<SsdCase> {
 protected:
  void SetUp() override { SERPENTINE_NEEDS_CUDA(); }
};

// Largest error over largest magnitude; worst measured on an H200 through Python: float32 1.1e-5
// (the gradient of A), bfloat16 5.2e-3, float16 5.7e-4, float64 6e-14
double tolerance(at::ScalarType type) {
  switch (type) {
    case torch::kDouble:
      return 1e-11;
    case torch::kBFloat16:
      return 1e-2;
    case torch::kHalf:
      return 1.2e-3;
    default:
      return 2e-5;
  }
}

TEST_P(SsdCuda, MatchesTheDefinitionAndItself) {
  const SsdCase& of = GetParam();
  torch::manual_seed(1);
  const ScanOrder order = make_test_order(of.order, of.batch, of.tokens);
  const SsdArgs args = random_args(of, order);
  const ScanRun expected = run_ssd(ssd_reference, move_to(args, at::kCPU, true), order, of);
  const ScanOrder there = order.to(at::kCUDA);
  const SsdArgs moved = move_to(args, at::kCUDA);
  const ScanRun actual = run_ssd(ssd, moved, there, of), again = run_ssd(ssd, moved, there, of);
  for (size_t i = 0; i < actual.values.size(); ++i) {
    EXPECT_TRUE(is_close_max(actual.values[i], expected.values[i], tolerance(of.type)))
        << actual.names[i];
    expect_equal(again.values[i], actual.values[i], actual.names[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(, SsdCuda, ::testing::ValuesIn(ssd_cases()),
                         [](const auto& one) { return name_of(one.param); });

}  // namespace
}  // namespace serpentine::testing
