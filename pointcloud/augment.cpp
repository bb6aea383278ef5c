#include "pointcloud/augment.h"

#include <numbers>
#include <utility>

#include <torch/torch.h>

#include "core/check.h"
#include "pointcloud/sampling.h"

namespace serpentine {
namespace {

constexpr const char* kAugmentWho = "augment";
constexpr double kMostTilts = 3;  // deviations

torch::Tensor uniform(at::IntArrayRef shape, double least, double most, const torch::Tensor& as) {
  return torch::rand(shape, as.options()) * (most - least) + least;
}

// rotations by `angle` [B] about one axis: [B, 3, 3]
torch::Tensor about_axis(const torch::Tensor& angle, int64_t axis) {
  const torch::Tensor one = torch::ones_like(angle), zero = torch::zeros_like(angle),
                      c = angle.cos(), s = angle.sin();
  const std::vector<std::vector<torch::Tensor>> rows = {{one, zero, zero, zero, c, -s, zero, s, c},
                                                        {c, zero, s, zero, one, zero, -s, zero, c},
                                                        {c, -s, zero, s, c, zero, zero, zero, one}};
  return torch::stack(rows[axis], 1).view({-1, 3, 3});
}

// uniform over all rotations, from a random unit quaternion: [B, 3, 3]
torch::Tensor any_rotation(int64_t count, const torch::Tensor& as) {
  const torch::Tensor random = torch::randn({count, 4}, as.options());
  const auto q = (random / random.norm(2, 1, /*keepdim=*/true).clamp_min(1e-12)).unbind(1);
  const auto &w = q[0], &x = q[1], &y = q[2], &z = q[3];
  return torch::stack({1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
                       2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
                       2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)},
                      1)
      .view({-1, 3, 3});
}

torch::Tensor rotation(const AugmentOptions& options, int64_t count, const torch::Tensor& as) {
  torch::Tensor turn = torch::eye(3, as.options()).expand({count, 3, 3});
  const auto angle = [&] { return uniform({count}, 0, 2 * std::numbers::pi, as); };
  if (options.rotate == "z") turn = about_axis(angle(), 2);
  if (options.rotate == "y") turn = about_axis(angle(), 1);
  if (options.rotate == "any") turn = any_rotation(count, as);
  for (int64_t axis = 0; axis < 3 && options.tilt > 0; ++axis) {
    const torch::Tensor small =
        torch::randn({count}, as.options()).clamp(-kMostTilts, kMostTilts) * options.tilt;
    turn = torch::matmul(about_axis(small, axis), turn);
  }
  if (options.mirror > 0) {
    const torch::Tensor flipped = torch::rand({count, 2}, as.options()) < options.mirror;
    const torch::Tensor sign = 1 - 2 * flipped.to(as.scalar_type());
    const torch::Tensor signs = torch::cat({sign, torch::ones({count, 1}, as.options())}, 1);
    turn = turn * signs.unsqueeze(1);
  }
  return turn;
}

}  // namespace

void AugmentOptions::fields(Fields& f) {
  f("scale_least", scale_least, "the smallest factor of sizes", {.least = 0.01, .most = 100});
  f("scale_most", scale_most, "the largest factor of sizes", {.least = 0.01, .most = 100});
  f("each_axis", each_axis, "a factor for each axis of its own");
  f("translate", translate, "the longest way along each axis, in the unit of the points",
    {.least = 0});
  f("rotate", rotate, "about an axis, or any way", {.choices = {"none", "y", "z", "any"}});
  f("tilt", tilt, "deviation of small rotations about each axis, in radians", {.least = 0});
  f("jitter", jitter, "deviation of each coordinate", {.least = 0});
  f("jitter_most", jitter_most, "the largest jitter", {.least = 0});
  f("drop_points", drop_points, "up to this part of the points becomes the first one",
    {.least = 0, .most = 0.99});
  f("drop_features", drop_features, "probability that all features of a cloud are 0",
    {.least = 0, .most = 1});
  f("feature_jitter", feature_jitter, "deviation of features, as colours", {.least = 0});
  f("mirror", mirror, "probability of a mirror image along x, and along y",
    {.least = 0, .most = 1});
  f("turning", turning, "features that turn with the cloud: the first of each three, as a normal's",
    {.least = 0});
}

void AugmentOptions::check() const {
  SERPENTINE_CHECK(scale_least <= scale_most, kAugmentWho,
                   "scale_least must not exceed scale_most, got ", scale_least, " and ",
                   scale_most);
}

Batch augmented(const Batch& batch, const AugmentOptions& options) {
  options.check();
  const torch::NoGradGuard no_grad;
  Batch out = batch;
  torch::Tensor points = batch.input, features = batch.get("features");
  const int64_t count = points.size(0), size = points.size(1);
  if (options.rotate != "none" || options.tilt > 0 || options.mirror > 0) {
    const torch::Tensor turn = rotation(options, count, points).transpose(1, 2);
    points = torch::matmul(points, turn);
    for (const int64_t first : options.turning) {
      SERPENTINE_CHECK(features.defined() && first + 3 <= features.size(2), kAugmentWho,
                       "turning names feature ", first, ", but there are ",
                       features.defined() ? features.size(2) : 0);
      features = features.clone();
      features.narrow(2, first, 3).copy_(torch::matmul(features.narrow(2, first, 3), turn));
    }
  }
  if (options.scale_least != 1 || options.scale_most != 1)
    points = points * uniform({count, 1, options.each_axis ? 3 : 1}, options.scale_least,
                              options.scale_most, points);
  if (options.translate > 0)
    points = points + uniform({count, 1, 3}, -options.translate, options.translate, points);
  if (options.jitter > 0)
    points = points + (torch::randn_like(points) * options.jitter)
                          .clamp(-options.jitter_most, options.jitter_most);
  if (features.defined() && options.feature_jitter > 0)
    features = features + torch::randn_like(features) * options.feature_jitter;
  if (features.defined() && options.drop_features > 0)
    features = features * (torch::rand({count, 1, 1}, points.options()) >= options.drop_features);
  if (options.drop_points > 0) {
    const torch::Tensor ratio = uniform({count, 1}, 0, options.drop_points, points);
    const torch::Tensor lost = (torch::rand({count, size}, points.options()) < ratio).unsqueeze(2);
    points = torch::where(lost, points.narrow(1, 0, 1), points);
    if (features.defined()) features = torch::where(lost, features.narrow(1, 0, 1), features);
  }
  out.input = std::move(points);
  if (features.defined()) out.named["features"] = features;
  return out;
}

torch::Tensor mix_clouds(Batch& batch, const torch::Tensor& partner, const torch::Tensor& keep) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor points = batch.input;
  const int64_t count = points.size(0), size = points.size(1);

  // positions by distance from a random point of the cloud itself
  const torch::Tensor middle =
      torch::randint(size, {count, 1}, points.options().dtype(torch::kLong));
  const torch::Tensor rank = squared_distances(take_rows(points, middle), points)
                                 .squeeze(1)
                                 .argsort(int64_t{1}, /*descending=*/false)
                                 .argsort(int64_t{1}, /*descending=*/false);
  const torch::Tensor own = rank < (keep * static_cast<double>(size)).unsqueeze(1);
  const auto mixed = [&](const torch::Tensor& x) {
    return torch::where(own.unsqueeze(2), x, x.index_select(0, partner));
  };
  batch.input = mixed(points);
  const torch::Tensor features = batch.get("features");
  if (features.defined()) batch.named["features"] = mixed(features);
  return own.to(points.scalar_type()).mean(1);
}

}  // namespace serpentine
