// Metrics against SimpleITK 2.5 (Dice, Jaccard, Hausdorff distance) and SciPy's exact distances
// (95 % and mean distances, MONAI's definitions) on a bundled label and a moved copy of it.
#include "segmentation/metrics.h"

#include <cmath>

#include "segmentation/files.h"
#include "support/close.h"

namespace serpentine::testing {
namespace {

struct Pair {
  torch::Tensor guess, truth;
};
Pair moved_label() {
  const auto truth = read_nifti(kSamples + "/labelsTr/hippocampus_001.nii.gz")[0];
  auto guess = torch::roll(truth, {1, 0, 2}, {0, 1, 2}).clone();
  guess.slice(0, 2, 5).slice(1, 2, 5).slice(2, 2, 6).fill_(1);  // a lesion that is not there
  return {guess, truth};
}

struct Expected {
  Spacing spacing;
  int64_t label;
  double dice, iou, hd95, hd, assd, nsd1, nsd2;
};

class Reference : public ::testing::TestWithParam<Expected> {};

TEST_P(Reference, Agrees) {
  const auto pair = moved_label();
  const auto& wanted = GetParam();
  const auto found =
      mask_metrics(pair.guess.eq(wanted.label), pair.truth.eq(wanted.label), wanted.spacing);
  EXPECT_NEAR(found.dice, wanted.dice, 1e-8);
  EXPECT_NEAR(found.iou, wanted.iou, 1e-8);
  EXPECT_NEAR(found.hd95, wanted.hd95, 2e-6 * wanted.hd95);
  EXPECT_NEAR(found.hd, wanted.hd, 2e-6 * wanted.hd);
  EXPECT_NEAR(found.assd, wanted.assd, 2e-6);
  EXPECT_NEAR(found.nsd[0], wanted.nsd1, 1e-8);
  EXPECT_NEAR(found.nsd[1], wanted.nsd2, 1e-8);
}

INSTANTIATE_TEST_SUITE_P(Labels, Reference,
                         ::testing::Values(Expected{{1, 1, 1},
                                                    1,
                                                    0.769746647,
                                                    0.625681405,
                                                    28.757607689,
                                                    31.400636936,
                                                    1.675960571,
                                                    0.748691099,
                                                    0.940663176},
                                           Expected{{1, 1, 1},
                                                    2,
                                                    0.705665025,
                                                    0.545195052,
                                                    2.236067977,
                                                    2.236067977,
                                                    0.990882328,
                                                    0.658176944,
                                                    0.945040214},
                                           Expected{{2.5, 0.8, 0.6},
                                                    1,
                                                    0.769746647,
                                                    0.625681405,
                                                    25.846580062,
                                                    29.597972904,
                                                    1.568157018,
                                                    0.703315881,
                                                    0.880453752},
                                           Expected{{2.5, 0.8, 0.6},
                                                    2,
                                                    0.705665025,
                                                    0.545195052,
                                                    2.0,
                                                    2.773084925,
                                                    0.864991923,
                                                    0.650134048,
                                                    0.969839142}));

TEST(Metrics, CountLesions) {
  const auto pair = moved_label();
  const auto found = mask_metrics(pair.guess.eq(1), pair.truth.eq(1), {1, 1, 1});
  EXPECT_EQ(found.lesions, 1);
  EXPECT_EQ(found.lesions_found, 1);
  EXPECT_EQ(found.false_lesions, 1);
  EXPECT_NEAR(found.lesion_f1, 2. / 3, 1e-12);
}

TEST(Metrics, OfEqualMasksArePerfect) {
  const auto mask = ball(9, 9, 9, 3).labels.gt(0);
  const auto found = mask_metrics(mask, mask, {2, 1, 1});
  EXPECT_EQ(found.dice, 1);
  EXPECT_EQ(found.hd, 0);
  EXPECT_EQ(found.assd, 0);
  EXPECT_EQ(found.nsd[0], 1);
  EXPECT_EQ(found.volume_error, 0);
  EXPECT_DOUBLE_EQ(found.volume_truth, mask.sum().item<double>() * 2 / 1000);
}

TEST(Metrics, OfEmptyMasksSaySo) {
  const auto none = torch::zeros({4, 4, 4}, torch::kBool), all = ~none;
  const auto neither = mask_metrics(none, none, {1, 1, 1});
  EXPECT_TRUE(std::isnan(neither.dice) && std::isnan(neither.hd95) && std::isnan(neither.nsd[0]));
  const auto missed = mask_metrics(none, all, {1, 1, 1});
  EXPECT_EQ(missed.dice, 0);
  EXPECT_TRUE(std::isnan(missed.hd95));
  EXPECT_EQ(missed.nsd[0], 0);
  EXPECT_EQ(missed.volume_error, -1);
}

TEST(Metrics, NamesFitValues) {
  MetricOptions options;
  options.tolerances = {0.5, 1, 3};
  const auto mask = ball(5, 5, 5, 2).labels.gt(0);
  EXPECT_EQ(metric_names(options).size(),
            metric_values(mask_metrics(mask, mask, {1, 1, 1}, options)).size());
}

}  // namespace
}  // namespace serpentine::testing
