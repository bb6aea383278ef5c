// Changes of patches: image and label move together, intensities change as they are named.
#include <cmath>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "segmentation/augment.h"

namespace serpentine::testing {
namespace {

constexpr std::array<int64_t, 3> kSize = {24, 28, 26}, kMiddle = {20, 20, 20};

PatchAugmentOptions nothing() {
  PatchAugmentOptions options;
  options.rotate_p = options.scale_p = options.elastic_p = 0;
  options.mirror = "";
  options.noise_p = options.blur_p = options.brightness_p = options.contrast_p = 0;
  options.low_resolution_p = options.gamma_p = options.inverted_gamma_p = 0;
  return options;
}

/// A body of unequal axes off the middle, so that every turn and mirror shows; the image is 1 in
/// it.
Patch body() {
  const auto along = torch::arange(40, torch::kFloat) - 20;
  const auto z = (along - 1).div(8).square().view({40, 1, 1}),
             y = (along + 2).div(10).square().view({1, 40, 1}),
             x = along.div(5).square().view({1, 1, 40});
  const auto inside = (z + y + x).le(1);
  return {inside.to(torch::kFloat).unsqueeze(0), inside.to(torch::kInt)};
}

Patch cut(const PatchAugmentOptions& options, int64_t seed) {
  const Patch whole = body();
  Chance chance(seed, 0);
  return cut_patch(whole.image, whole.target, kSize, kMiddle, options, chance);
}

double count(const torch::Tensor& mask) { return mask.sum().item<double>(); }

TEST(PatchAugment, MovesImageAndLabelTogether) {
  const Patch plain = cut(nothing(), 1);
  for (const bool turned : {true, false}) {
    PatchAugmentOptions options = nothing();
    (turned ? options.rotate_p : options.elastic_p) = 1;
    options.rotate = 40;
    for (int64_t seed = 1; seed <= 5; ++seed) {
      const Patch moved = cut(options, seed);
      EXPECT_EQ(moved.target.sizes(), plain.target.sizes());
      const auto shown = moved.image[0].gt(0.5), said = moved.target.eq(1);
      // half a voxel at the border; a shift of one voxel would be 30 %
      EXPECT_LT(count(shown.ne(said)), 0.08 * count(said)) << turned << " " << seed;
      EXPECT_GT(count(moved.target.ne(plain.target)), 0.05 * count(said)) << turned << " " << seed;
      if (turned) {
        EXPECT_NEAR(count(said) / count(plain.target), 1, 0.06);
      }
    }
  }
}

TEST(PatchAugment, ScalesByTheFactorAsked) {
  PatchAugmentOptions options = nothing();
  options.scale_p = 1;
  for (const double factor : {0.8, 1.25}) {  // of what a patch shows: the body is smaller by it
    options.scale_least = options.scale_most = factor;
    const Patch scaled = cut(options, 3);
    EXPECT_NEAR(count(scaled.target) / count(body().target), std::pow(factor, -3), 0.06);
  }
}

TEST(PatchAugment, MirrorsBothAlongTheNamedAxes) {
  PatchAugmentOptions options = nothing();
  options.mirror = "zx";
  const Patch plain = cut(options, 1);
  std::array<int64_t, 4> seen = {};
  for (int64_t seed = 0; seed < 40; ++seed) {
    Patch patch = plain;
    Chance chance(seed, 0);
    vary_patch(patch, options, chance);
    for (int64_t which = 0; which < 4; ++which) {
      std::vector<int64_t> axes;
      if (which & 1) axes.push_back(0);
      if (which & 2) axes.push_back(2);
      if (!patch.target.equal(plain.target.flip(axes))) continue;
      EXPECT_TRUE(patch.image[0].equal(plain.image[0].flip(axes)));
      ++seen[static_cast<size_t>(which)];
    }
  }
  for (const int64_t times : seen) EXPECT_GT(times, 2);  // each about ten times
  EXPECT_EQ(seen[0] + seen[1] + seen[2] + seen[3], 40);
}

TEST(PatchAugment, ChangesIntensitiesAsNamed) {
  torch::manual_seed(1);
  const auto image = torch::rand({2, 12, 16, 14}) + 0.5;
  const auto varied = [&](double PatchAugmentOptions::* which, int64_t seed) {
    PatchAugmentOptions options = nothing();
    options.*which = 1;
    Patch patch = {image, torch::ones({12, 16, 14}, torch::kInt)};
    Chance chance(seed, 0);
    vary_patch(patch, options, chance);
    EXPECT_TRUE(patch.target.eq(1).all().item<bool>());
    EXPECT_EQ(patch.image.sizes(), image.sizes());
    return patch.image;
  };
  const auto deviation = [](const torch::Tensor& x) { return x.std().item<double>(); };
  const auto mean = [](const torch::Tensor& x) { return x.mean().item<double>(); };
  int64_t coarser = 0;
  for (int64_t seed = 1; seed <= 6; ++seed) {
    const auto noise = varied(&PatchAugmentOptions::noise_p, seed) - image;
    EXPECT_NEAR(mean(noise), 0, 0.02);
    EXPECT_GT(deviation(noise), 0.01);
    EXPECT_LT(deviation(noise), 0.33);  // a variance of at most .1
    const auto blurred = varied(&PatchAugmentOptions::blur_p, seed),
               coarse = varied(&PatchAugmentOptions::low_resolution_p, seed);
    EXPECT_LT(deviation(blurred), 0.9 * deviation(image));
    EXPECT_LE(deviation(coarse), deviation(image));  // at a zoom of nearly 1 nothing changes
    coarser += deviation(coarse) < 0.9 * deviation(image) ? 1 : 0;
    for (const auto& smooth : {blurred, coarse}) EXPECT_NEAR(mean(smooth), mean(image), 0.03);
    const auto ratio = varied(&PatchAugmentOptions::brightness_p, seed) / image;
    EXPECT_LT(deviation(ratio), 1e-5);
    EXPECT_TRUE(mean(ratio) >= 0.75 && mean(ratio) <= 1.25 && std::abs(mean(ratio) - 1) > 1e-3);
    const auto contrast = varied(&PatchAugmentOptions::contrast_p, seed);
    EXPECT_NEAR(mean(contrast), mean(image), 0.02);
    EXPECT_GT(std::abs(deviation(contrast) / deviation(image) - 1), 1e-3);
    EXPECT_LE(contrast.max().item<float>(), image.max().item<float>() + 1e-5F);
    for (const auto which :
         {&PatchAugmentOptions::gamma_p, &PatchAugmentOptions::inverted_gamma_p}) {
      const auto curve = varied(which, seed);
      EXPECT_GT((curve - image).abs().max().item<float>(), 1e-3F);
      // brighter stays brighter, mean and spread stay
      const auto rising = curve.flatten().index_select(0, image.flatten().argsort()).diff();
      EXPECT_GT(rising.min().item<float>(), -1e-6F);
      EXPECT_NEAR(mean(curve), mean(image), 1e-3);
      EXPECT_NEAR(deviation(curve), deviation(image), 1e-3);
    }
  }
  EXPECT_GE(coarser, 3);
}

TEST(PatchAugment, IsAFunctionOfTheSeed) {
  PatchAugmentOptions options;
  options.rotate_p = options.elastic_p = options.noise_p = 1;
  const auto made = [&](int64_t seed) {
    Patch patch = cut(options, seed);
    Chance chance(seed, 1);
    vary_patch(patch, options, chance);
    return patch;
  };
  const Patch one = made(7), again = made(7), other = made(8);
  EXPECT_TRUE(one.image.equal(again.image) && one.target.equal(again.target));
  EXPECT_FALSE(one.image.equal(other.image));
}

}  // namespace
}  // namespace serpentine::testing
