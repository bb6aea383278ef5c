// The CUDA scan against the CPU's in float64, over orders, shapes, types and merges; and its
// promises.
#include <ATen/cuda/CUDAContext.h>

#include "core/ops/scan_cases.h"
#include "support/close.h"
#include "support/cuda.h"

namespace serpentine::testing {
namespace {

class SelectiveScanCuda : public ::testing::TestWithParam<ScanCase> {
 protected:
  void SetUp() override { SERPENTINE_NEEDS_CUDA(); }
};

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

TEST_P(SelectiveScanCuda, MatchesTheCpuInDouble) {
  const ScanCase& scan = GetParam();
  torch::manual_seed(1);
  const ScanOrder order = make_test_order(scan.order, scan.batch, scan.tokens);
  const SelectiveScanArgs args = random_args(scan, order);
  const ScanRun expected =
      run_scan(selective_scan, move_to(args, at::kCPU, /*in_double=*/true), order, scan);
  const ScanOrder there = order.to(at::kCUDA);
  const SelectiveScanArgs moved = move_to(args, at::kCUDA);
  const ScanRun actual = run_scan(selective_scan, moved, there, scan);
  for (size_t i = 0; i < actual.values.size(); ++i) {
    EXPECT_TRUE(is_close_max(actual.values[i], expected.values[i], tolerance(scan.type, i >= 2)))
        << actual.names[i];
  }

  // again, bit for bit: with and without gradients
  const ScanRun again = run_scan(selective_scan, moved, there, scan);
  for (size_t i = 0; i < actual.values.size(); ++i) {
    expect_equal(again.values[i], actual.values[i], actual.names[i]);
  }
  const auto result = selective_scan(moved, there, scan.rows, scan.merge, true);
  expect_equal(result.y, actual.values[0], "y without gradients");
  expect_equal(result.final_state, actual.values[1], "the final state without gradients");
}

/// Sequences that are cut into pieces, and lengths round the borders of pieces and tiles.
std::vector<ScanCase> long_cases() {
  std::vector<ScanCase> all;
  for (const char* order : {"identity", "random", "padded", "ragged", "cross", "twice"}) {
    all.push_back(
        {.order = order, .batch = 1, .tokens = 3001, .channels = 40, .initial_state = true});
  }
  for (const int64_t tokens : {511, 512, 513, 4096, 20011}) {
    all.push_back(
        {.batch = 1, .tokens = tokens, .channels = 17, .states = 1, .initial_state = true});
    all.push_back(
        {.batch = 1, .tokens = tokens, .channels = 9, .states = 16, .initial_state = true});
  }
  for (const int64_t states : {2, 33, 64, 256}) {
    all.push_back({.batch = 1, .tokens = 1500, .channels = 6, .states = states});
  }
  all.push_back(
      {.order = "groups", .batch = 3, .tokens = 2050, .channels = 33, .type = torch::kDouble});
  all.push_back(
      {.order = "random", .batch = 2, .tokens = 2050, .channels = 33, .type = torch::kBFloat16});
  return all;
}

/// Enough blocks for all branches of a plane to be walked in one; an even number of channels, which
/// are walked by two where there are many; and several rounds of blocks, whole and in pieces.
std::vector<ScanCase> wide_cases() {
  std::vector<ScanCase> all;
  for (const int64_t tokens : {49, 200}) {
    ScanCase plane{.order = "cross", .batch = 70, .tokens = tokens, .channels = 70, .states = 1};
    all.push_back(plane);
    plane.initial_state = true;
    plane.merge = Merge::kMean;
    plane.type = tokens == 49 ? torch::kHalf : torch::kBFloat16;
    all.push_back(plane);
  }
  for (const int64_t states : {7, 11, 16, 30}) {
    for (const char* order : {"identity", "cross"}) {
      all.push_back({.order = order,
                     .batch = 2,
                     .tokens = 83,
                     .channels = 150,
                     .states = states,
                     .initial_state = true});
    }
  }
  for (const auto type : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    all.push_back(
        {.batch = 110, .tokens = 37, .channels = 126, .initial_state = true, .type = type});
    all.push_back({.order = "random",
                   .batch = 110,
                   .tokens = 21,
                   .channels = 62,
                   .states = 30,
                   .type = type});
  }
  all.push_back({.order = "cross", .batch = 28, .tokens = 35, .channels = 126, .states = 11});
  all.push_back({.order = "random", .batch = 1, .tokens = 10000, .channels = 512});
  return all;
}

std::string case_name(const ::testing::TestParamInfo<ScanCase>& info) {
  return name_of(info.param);
}
INSTANTIATE_TEST_SUITE_P(Shapes, SelectiveScanCuda, ::testing::ValuesIn(shape_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Orders, SelectiveScanCuda, ::testing::ValuesIn(order_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Types, SelectiveScanCuda, ::testing::ValuesIn(type_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Wide, SelectiveScanCuda, ::testing::ValuesIn(wide_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Long, SelectiveScanCuda, ::testing::ValuesIn(long_cases()), case_name);

TEST(SelectiveScanCudaPromise, IdentityOrderEqualsAnIndex) {
  SERPENTINE_NEEDS_CUDA();
  ScanCase scan{.tokens = 150, .channels = 192, .initial_state = true};
  for (const Rows rows : {Rows::kToken, Rows::kPosition}) {
    scan.rows = rows;
    const ScanOrder plain = identity_order(scan.tokens, at::kCUDA);
    const ScanOrder indexed = make_order(plain.tokens, plain.offsets, plain.branch, scan.tokens);
    const SelectiveScanArgs args = move_to(random_args(scan, plain), at::kCUDA);
    const ScanRun expected = run_scan(selective_scan, args, plain, scan);
    const ScanRun actual = run_scan(selective_scan, args, indexed, scan);
    for (size_t i = 0; i < actual.values.size(); ++i) {
      expect_equal(actual.values[i], expected.values[i], actual.names[i]);
    }
  }
}

/// More than 2^31 elements in u: offsets are 64 bits wide from the first multiplication on.
TEST(SelectiveScanCudaPromise, ReachesBeyond32Bits) {
  SERPENTINE_NEEDS_CUDA();
  if (at::cuda::getCurrentDeviceProperties()->totalGlobalMem < (size_t{40} << 30)) {
    GTEST_SKIP() << "needs 40 GiB of GPU memory";
  }
  const int64_t tokens = (int64_t{1} << 21) + 17, channels = 1024;
  const auto half = torch::dtype(torch::kHalf).device(at::kCUDA);
  const ScanOrder order = identity_order(tokens, at::kCUDA);
  SelectiveScanArgs args;
  args.u = torch::randn({1, tokens, channels}, half);
  args.delta = torch::randn({1, tokens, 1, channels}, half);
  args.A = -torch::rand({1, channels, 1}, at::kCUDA) - 0.5;
  args.B = torch::randn({1, tokens, 1, 1}, half);
  args.C = torch::randn({1, tokens, 1, 1}, half);
  const auto y = selective_scan(args, order).y;

  // decays are fast: the end of the sequence does not depend on its beginning
  const int64_t tail = 400;
  SelectiveScanArgs last = args;
  for (auto* rows : {&last.u, &last.delta, &last.B, &last.C}) {
    *rows = rows->narrow(1, tokens - tail, tail);
  }
  const auto expected = selective_scan(last, identity_order(tail, at::kCUDA)).y;
  EXPECT_TRUE(
      is_close_max(y.narrow(1, tokens - 100, 100), expected.narrow(1, tail - 100, 100), 2e-3));
}

TEST(SelectiveScanCudaPromise, DecaysToZeroAndSurvivesExtremes) {
  SERPENTINE_NEEDS_CUDA();
  const ScanOrder order = identity_order(4);
  SelectiveScanArgs args =
      random_args({.batch = 1, .tokens = 4, .channels = 3, .states = 2}, order);
  args.delta =
      torch::tensor({-200.0f, 200.0f, 25.0f, -30.0f}).view({1, 4, 1, 1}).expand({1, 4, 1, 3});
  args.A = torch::full({1, 3, 2}, -50.0f);
  const auto expected = selective_scan_reference(args, order, Rows::kToken, Merge::kSum, true);
  args = move_to(args, at::kCUDA);
  const auto actual = selective_scan(args, order.to(at::kCUDA), Rows::kToken, Merge::kSum, true);
  EXPECT_TRUE(is_close_max(actual.y, expected.y, 1e-6));
  EXPECT_TRUE(is_close_max(actual.final_state, expected.final_state, 1e-6));
}

}  // namespace
}  // namespace serpentine::testing
