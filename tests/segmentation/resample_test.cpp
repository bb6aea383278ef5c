// Resampling: what stays, what is exact, and that slabs equal the whole.
#include "segmentation/resample.h"

#include "support/close.h"

namespace serpentine::testing {
namespace {

TEST(Resample, KeepsTheSameSize) {
  const auto x = torch::randn({2, 4, 5, 6});
  expect_equal(resample_image(x, {4, 5, 6}, -1), x);
}

TEST(Resample, KeepsConstantsAndStraightLines) {
  expect_close(resample_image(torch::full({1, 4, 5, 6}, 3.F), {7, 3, 11}, -1),
               torch::full({1, 7, 3, 11}, 3.F), 1e-6);
  const auto line = torch::arange(8, torch::kFloat);
  const auto twice = resample_axis(line, 0, axis_taps(8, 16, Taps::kLinear));
  const auto expected = (torch::arange(16, torch::kFloat) + 0.5) / 2 - 0.5;
  expect_close(twice.slice(0, 1, 15), expected.slice(0, 1, 15), 1e-6);
  const auto cubic = resample_axis(line, 0, axis_taps(8, 16, Taps::kCubic));
  expect_close(cubic.slice(0, 4, 12), expected.slice(0, 4, 12), 1e-6);
}

TEST(Resample, SlabsEqualTheWhole) {
  const auto x = torch::randn({2, 9, 4, 4});
  for (const auto taps : {Taps::kNearest, Taps::kLinear, Taps::kCubic}) {
    for (const int64_t out : {5, 9, 20}) {
      const auto table = axis_taps(9, out, taps);
      const auto whole = resample_axis(x, 1, table);
      for (int64_t first = 0; first < out; first += 3) {
        const int64_t last = std::min<int64_t>(out, first + 3);
        const auto [begin, end] = table.reads(first, last);
        const auto part = x.narrow(1, begin, end - begin);
        const auto slab = resample_axis(table.in == table.out ? x : part, 1, table, first, last,
                                        table.in == table.out ? 0 : begin);
        expect_equal(slab.contiguous(), whole.narrow(1, first, last - first).contiguous());
      }
    }
  }
}

TEST(Resample, LabelsStayWholeAndKeepTheirPlace) {
  auto labels = torch::zeros({6, 6, 6}, torch::kInt);
  labels.slice(0, 2, 4).fill_(7);
  const auto twice = resample_labels(labels, {12, 12, 12}, -1);
  EXPECT_TRUE(twice.eq(0).logical_or(twice.eq(7)).all().item<bool>());
  EXPECT_EQ(twice.eq(7).sum().item<int64_t>(), 4 * 12 * 12);
  expect_equal(resample_labels(twice, {6, 6, 6}, -1), labels);
}

TEST(Resample, FindsTheCoarseAxis) {
  EXPECT_EQ(coarse_axis({5, 1, 1}), 0);
  EXPECT_EQ(coarse_axis({1, 1, 4}), 2);
  EXPECT_EQ(coarse_axis({3, 1, 1}), -1);
}

}  // namespace
}  // namespace serpentine::testing
