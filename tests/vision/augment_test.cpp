#include "vision/augment.h"

#include <thread>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "core/data/loader.h"
#include "vision/image_dataset.h"
#include "vision/pictures.h"

namespace serpentine {
namespace {

ImageView view_of(int64_t side, int64_t channels) {
  ImageView view;
  view.height = view.width = side;
  view.channels = channels;
  view.crop_ratio = 1;
  view.mean.assign(static_cast<size_t>(channels), 0.4);
  view.deviation.assign(static_cast<size_t>(channels), 0.25);
  return view;
}

ImageAugmentOptions everything() {
  ImageAugmentOptions o;
  o.crop = "random_resized";
  o.flip = 0.5;
  o.randaugment = 2;
  o.jitter = {0.4, 0.4, 0.4, 0.1};
  o.erase = 0.5;
  o.mixup = 0.8;
  o.cutmix = 1;
  return o;
}

std::shared_ptr<ImageDataset> dataset(const ImageAugmentOptions& options, int64_t count) {
  torch::manual_seed(5);
  ImageDataset::Parts parts;
  parts.store = std::make_shared<PackedImages>(
      torch::randint(256, {count, 20, 16, 3}, torch::kUInt8), "memory");
  parts.faults = std::make_shared<ImageFaults>();
  for (int64_t i = 0; i < count; ++i) {
    parts.rows.push_back(i);
    parts.labels.push_back(i % 4);
  }
  parts.classes = 4;
  parts.view = view_of(12, 3);
  parts.augment = options;
  return std::make_shared<ImageDataset>(parts);
}

TEST(Augment, TheSameBitsForAnyNumberOfThreads) {
  const auto data = dataset(everything(), 40);
  std::vector<torch::Tensor> first, targets;
  for (const int64_t threads : {0, 1, 4}) {
    LoaderOptions how;
    how.batch_size = 7;
    how.threads = threads;
    how.draw = true;
    Loader loader(*data, how, 11);
    loader.start(3);
    size_t at = 0;
    for (auto batch = loader.next(); batch; batch = loader.next(), ++at) {
      if (threads == 0) {
        first.push_back(batch->input);
        targets.push_back(batch->target);
        EXPECT_TRUE(torch::isfinite(batch->input).all().item<bool>());
        EXPECT_TRUE(torch::allclose(batch->target.sum(1), torch::ones({batch->size()})));
      } else {
        EXPECT_TRUE(batch->input.equal(first[at]));
        EXPECT_TRUE(batch->target.equal(targets[at]));
      }
    }
  }
}

TEST(Augment, EpochsSeedsAndCopiesDiffer) {
  const auto data = dataset(everything(), 8);
  const std::vector<int64_t> zero = {0, 0}, one = {1, 1};
  const auto base = data->draw({2, 5}, {1, 0, zero}).input;
  EXPECT_TRUE(base.equal(data->draw({2, 5}, {1, 0, zero}).input));
  EXPECT_FALSE(base.equal(data->draw({2, 5}, {1, 1, zero}).input));
  EXPECT_FALSE(base.equal(data->draw({2, 5}, {2, 0, zero}).input));
  EXPECT_FALSE(base.equal(data->draw({2, 5}, {1, 0, one}).input));
}

TEST(Augment, RepeatsComeInARowAndKeepTheEpochsLength) {
  ImageAugmentOptions flips;
  flips.crop = "random_resized";
  const auto data = dataset(flips, 10);
  LoaderOptions how;
  how.batch_size = 5;
  how.threads = 0;
  how.repeats = 2;
  how.draw = true;
  Loader loader(*data, how, 1);
  EXPECT_EQ(loader.num_batches(), 2);
  loader.start(0);
  const auto batch = loader.next();
  const auto index = batch->get("index");
  EXPECT_EQ(index[0].item<int64_t>(), index[1].item<int64_t>());
  EXPECT_EQ(index[2].item<int64_t>(), index[3].item<int64_t>());
  EXPECT_NE(index[0].item<int64_t>(), index[2].item<int64_t>());
  EXPECT_FALSE(batch->input[0].equal(batch->input[1]));
}

TEST(Augment, NothingChosenIsTheEvaluationView) {
  const auto view = view_of(12, 3);
  const auto picture = flat_picture(12, 200, 30, 40);
  Random random(0, 0);
  const auto image = augmented(picture, view, {}, random);
  EXPECT_TRUE(torch::allclose(image, normalised(to_unit(centre_view(picture, view)), view)));
  EXPECT_TRUE(to_picture(image, view).equal(picture));
}

TEST(Augment, FlipAndPaddedCropMoveWholePixels) {
  auto view = view_of(12, 3);
  view.mean = {0, 0, 0};
  view.deviation = {1, 1, 1};
  const auto picture = flat_picture(12, 200, 30, 40);
  ImageAugmentOptions o;
  o.flip = 1;
  Random random(0, 0);
  EXPECT_TRUE(to_picture(augmented(picture, view, o, random), view).equal(picture.flip({1})));
  o.flip = 0;
  o.crop = "padded";
  o.pad = 3;
  std::set<int64_t> sums;
  for (int64_t i = 0; i < 40; ++i) {
    Random other(0, i);
    sums.insert(to_picture(augmented(picture, view, o, other), view).sum().item<int64_t>());
  }
  EXPECT_GT(sums.size(), 5U);
}

TEST(Augment, OperationsAreHarmlessAtMagnitudeZeroAndFiniteAtTen) {
  torch::manual_seed(6);
  const std::vector<double> fill = {0.4, 0.4, 0.4};
  const auto image = torch::randint(256, {3, 9, 13}).to(torch::kFloat32) / 255;
  const std::set<std::string> always = {"auto_contrast", "equalize", "invert", "posterize"};
  for (const auto& name : rand_augment_operations()) {
    const auto same = apply_operation(name, image, 0, false, fill);
    if (always.count(name) == 0) {
      EXPECT_LT((same - image).abs().max().item<double>(), 1e-4) << name;
    }
    for (const bool negative : {false, true}) {
      const auto changed = apply_operation(name, image, 10, negative, fill);
      EXPECT_EQ(changed.sizes(), image.sizes()) << name;
      EXPECT_TRUE(torch::isfinite(changed).all().item<bool>()) << name;
      EXPECT_GE(changed.min().item<double>(), -1e-4) << name;
      EXPECT_LE(changed.max().item<double>(), 1 + 1e-4) << name;
    }
  }
}

TEST(Augment, TranslationsAndRotationsGoWhereTheySay) {
  auto image = torch::zeros({1, 20, 10});
  image[0][10][4] = 1;
  const auto moved =
      apply_operation("translate_x", image, 10.0 / 0.45 * 0.2, false, {0});  // a fifth of the width
  EXPECT_NEAR(moved[0][10][2].item<double>(), 1, 1e-3);
  // 30 degrees turn about the centre keep distances in pixels though the sides differ
  auto cross = torch::zeros({1, 21, 11});
  cross[0][10][5] = 1;
  EXPECT_NEAR(apply_operation("rotate", cross, 10, false, {0})[0][10][5].item<double>(), 1, 1e-3);
}

TEST(Augment, HueTurnsAroundTheCircle) {
  torch::manual_seed(7);
  const auto image = torch::rand({3, 5, 6});
  EXPECT_LT((hue_turned(image, 0) - image).abs().max().item<double>(), 1e-5);
  EXPECT_LT((hue_turned(image, 1) - image).abs().max().item<double>(), 1e-4);
  auto red = torch::zeros({3, 1, 1});
  red[0] = 1;
  const auto green = hue_turned(red, 1.0 / 3);
  EXPECT_NEAR(green[1].item<double>(), 1, 1e-5);
  EXPECT_NEAR(green[0].item<double>(), 0, 1e-5);
}

TEST(Augment, MixingKeepsSharesAndPixelsInStep) {
  for (const bool cut : {false, true}) {
    ImageAugmentOptions o;
    (cut ? o.cutmix : o.mixup) = 1;
    Batch batch;
    batch.input =
        torch::arange(4).to(torch::kFloat32).view({4, 1, 1, 1}).expand({4, 1, 16, 16}).contiguous();
    batch.target = torch::arange(4);
    batch.named["weight"] = torch::tensor({1.0f, 2.0f, 3.0f, 4.0f});
    Random random(3, 1);
    mix_batch(batch, 4, o, random);
    for (int64_t i = 0; i < 4; ++i) {
      const double own = batch.target[i][i].item<double>(),
                   other = batch.target[i][3 - i].item<double>();
      EXPECT_NEAR(own + other, 1, 1e-6);
      // the mean pixel value tells the share
      EXPECT_NEAR(batch.input[i].mean().item<double>(),
                  static_cast<double>(i) * own + static_cast<double>(3 - i) * other, 1e-4);
    }
    const double own = batch.target[0][0].item<double>();
    EXPECT_NEAR(batch.get("weight")[0].item<double>(), own + 4 * (1 - own), 1e-5);
  }
}

TEST(Augment, BetaDrawsHaveTheRightSpread) {
  for (const double alpha : {0.2, 0.8, 1.0, 5.0}) {
    double sum = 0, squares = 0;
    constexpr int kDraws = 20000;
    for (int64_t i = 0; i < kDraws; ++i) {
      Random random(9, i);
      const double value = random.beta(alpha);
      sum += value;
      squares += value * value;
    }
    const double mean = sum / kDraws, variance = squares / kDraws - mean * mean;
    EXPECT_NEAR(mean, 0.5, 0.015) << alpha;
    EXPECT_NEAR(variance, 1 / (4 * (2 * alpha + 1)), 0.01) << alpha;
  }
}

}  // namespace
}  // namespace serpentine
