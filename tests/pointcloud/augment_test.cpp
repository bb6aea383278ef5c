// Augmentation: what must stay stays, and what may vary does.
#include "pointcloud/augment.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "support/close.h"

namespace serpentine {
namespace {

using torch::Tensor;

Batch clouds() {
  torch::manual_seed(2);
  Batch batch;
  batch.input = torch::randn({5, 40, 3});
  batch.named["features"] = torch::cat({batch.input, torch::rand({5, 40, 1})}, 2);
  return batch;
}

Tensor gram(const Tensor& x) { return torch::matmul(x, x.transpose(1, 2)); }

TEST(Augment, DoesNothingUnlessAsked) {
  const Batch batch = clouds();
  const Batch same = augmented(batch, {});
  EXPECT_TRUE(same.input.equal(batch.input));
  EXPECT_TRUE(same.get("features").equal(batch.get("features")));
}

TEST(Augment, RotationsKeepDistancesAndTurnNormals) {
  const Batch batch = clouds();
  for (const char* way : {"y", "z", "any"}) {
    AugmentOptions options;
    options.rotate = way;
    options.tilt = 0.1;
    options.turning = {0};
    const Batch turned = augmented(batch, options);
    EXPECT_FALSE(testing::is_close(turned.input, batch.input, 1e-2));
    EXPECT_TRUE(testing::is_close(gram(turned.input), gram(batch.input), 1e-5));
    EXPECT_TRUE(testing::is_close(turned.get("features").narrow(2, 0, 3), turned.input, 1e-5));
    EXPECT_TRUE(turned.get("features").select(2, 3).equal(batch.get("features").select(2, 3)));
  }
  AugmentOptions about_z;
  about_z.rotate = "z";
  EXPECT_TRUE(augmented(batch, about_z).input.select(2, 2).equal(batch.input.select(2, 2)));
}

TEST(Augment, StaysInItsBounds) {
  const Batch batch = clouds();
  AugmentOptions options;
  options.jitter = 1;
  options.jitter_most = 0.02;
  EXPECT_LE((augmented(batch, options).input - batch.input).abs().max().item<float>(), 0.02001);
  options = {};
  options.translate = 0.3;
  const Tensor moved = augmented(batch, options).input - batch.input;
  EXPECT_LE(moved.abs().max().item<float>(), 0.30001);
  EXPECT_TRUE(testing::is_close(moved, moved.narrow(1, 0, 1).expand_as(moved), 1e-4));
  options = {};
  options.scale_least = 0.5;
  options.scale_most = 2;
  const Tensor factor = augmented(batch, options).input / batch.input;
  EXPECT_GE(factor.min().item<float>(), 0.4999);
  EXPECT_LE(factor.max().item<float>(), 2.0001);
  EXPECT_GT(factor.max().item<float>() - factor.min().item<float>(), 0.1);
  options.scale_least = 3;
  EXPECT_THROW(augmented(batch, options), c10::Error);
}

TEST(Augment, DroppedPointsBecomeTheFirst) {
  const Batch batch = clouds();
  AugmentOptions options;
  options.drop_points = 0.9;
  const Tensor left = augmented(batch, options).input;
  const Tensor same = (left == batch.input).all(2), first = (left == left.narrow(1, 0, 1)).all(2);
  EXPECT_TRUE(same.logical_or(first).all().item<bool>());
  EXPECT_GT(first.sum().item<int64_t>(), 5);
}

TEST(Augment, MixedCloudsHoldBothInTheirShares) {
  Batch batch = clouds();
  const Tensor before = batch.input.clone(), partner = torch::tensor({1, 2, 3, 4, 0}, torch::kLong),
               keep = torch::tensor({0.0F, 0.25F, 0.5F, 0.75F, 1.0F});
  const Tensor share = mix_clouds(batch, partner, keep);
  EXPECT_TRUE(testing::is_close(share, keep, 0.03));
  const Tensor own = (batch.input == before).all(2),
               other = (batch.input == before.index_select(0, partner)).all(2);
  EXPECT_TRUE(own.logical_xor(other).all().item<bool>());
  EXPECT_TRUE(testing::is_close(own.to(torch::kFloat).mean(1), share, 1e-6));
}

TEST(Augment, FollowsTheSeed) {
  AugmentOptions options;
  options.rotate = "any";
  options.jitter = 0.1;
  const Batch batch = clouds();
  torch::manual_seed(9);
  const Tensor one = augmented(batch, options).input;
  torch::manual_seed(9);
  EXPECT_TRUE(augmented(batch, options).input.equal(one));
  EXPECT_FALSE(augmented(batch, options).input.equal(one));
}

}  // namespace
}  // namespace serpentine
