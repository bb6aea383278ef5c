#include "pointcloud/sampling.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/check.h"
#include "pointcloud/sampling_cpu.h"
#include "pointcloud/sampling_device.h"

namespace serpentine {
namespace {

constexpr const char* kSamplingWho = "sampling";
constexpr float kNearZero = 1e-3F;     // |p|^2 up to which pointnet2_ops never chooses a point
constexpr float kSamplingFar = 1e10F;  // before the first choice, as published
constexpr int64_t kSamplingBlock = 16'000'000;  // distances at a time

void check_points(const at::Tensor& points, const char* name) {
  check_shape(kSamplingWho, points, name, {-1, -1, 3}, "B, N, 3");
  SERPENTINE_CHECK(points.is_floating_point(), kSamplingWho, name, " must be floating, got ",
                   points.scalar_type());
}

void check_pair(const at::Tensor& queries, const at::Tensor& points) {
  check_points(queries, "queries");
  check_points(points, "points");
  SERPENTINE_CHECK(queries.size(0) == points.size(0), kSamplingWho,
                   "queries and points must be of one ", "batch, got ", queries.sizes(), " and ",
                   points.sizes());
  check_same_device(kSamplingWho, points, "points", queries);
}

// the sum of three squares, in the order in which published kernels add them
at::Tensor sum_of_squares(const at::Tensor& differences) {
  const auto axes = differences.unbind(-1);
  return axes[0].square() + axes[1].square() + axes[2].square();
}

at::Tensor exact_distances(const at::Tensor& queries, const at::Tensor& points) {
  at::Tensor sum;
  for (int64_t axis = 0; axis < 3; ++axis) {
    const at::Tensor square =
        (queries.select(2, axis).unsqueeze(2) - points.select(2, axis).unsqueeze(1)).square();
    sum = sum.defined() ? sum + square : square;
  }
  return sum;
}

at::Tensor published_distances(const at::Tensor& queries, const at::Tensor& points) {
  return -2 * at::matmul(queries, points.transpose(1, 2)) + queries.square().sum(-1).unsqueeze(2) +
         points.square().sum(-1).unsqueeze(1);
}

// the type that the CPU's own code knows
bool is_plain(const at::Tensor& points) {
  return points.is_cpu() && points.scalar_type() == at::kFloat;
}

// how many queries to compare with all points at a time
int64_t block_of(const at::Tensor& queries, const at::Tensor& points) {
  const int64_t a_query = std::max<int64_t>(queries.size(0) * points.size(1), 1);
  return std::max<int64_t>(kSamplingBlock / a_query, 1);
}

Neighbours nearest_of_all(const at::Tensor& queries, const at::Tensor& points, int64_t k,
                          Distance distance) {
  const at::NoGradGuard no_grad;
  const bool by_warps =
      cuda::takes_points(points) && cuda::takes_points(queries) && k <= cuda::most_neighbours();
  std::vector<at::Tensor> nearest, index;
  for (const at::Tensor& some : queries.split(block_of(queries, points), 1)) {
    const at::Tensor distances = squared_distances(some, points, distance);
    at::Tensor values, indices;
    if (by_warps) {
      cuda::nearest_of_rows(distances, k, indices, values);
    } else {
      std::tie(values, indices) = distances.topk(k, -1, /*largest=*/false, /*sorted=*/true);
    }
    nearest.push_back(values);
    index.push_back(indices);
  }
  return {at::cat(index, 1), at::cat(nearest, 1)};
}

}  // namespace

at::Tensor farthest_points(const at::Tensor& points, int64_t count, FarthestRule rule) {
  check_points(points, "points");
  SERPENTINE_CHECK(count >= 1 && count <= points.size(1), kSamplingWho,
                   "the number of farthest points ", "must be in 1..", points.size(1),
                   ", the points of a cloud, got ", count);
  const at::NoGradGuard no_grad;
  const at::Tensor cloud = points.detach().contiguous();
  const int64_t batch = cloud.size(0);
  const bool away = rule == FarthestRule::kAwayFromZero;
  if (cuda::takes_points(cloud))
    return cuda::farthest_points(cloud, count, away, kNearZero, kSamplingFar);
  at::Tensor never;
  if (away) never = sum_of_squares(cloud) <= kNearZero;
  if (is_plain(cloud)) return cpu::farthest_points(cloud, never, count);
  at::Tensor distance = at::full({batch, cloud.size(1)}, kSamplingFar, cloud.options());
  if (never.defined()) distance.masked_fill_(never, -1);

  at::Tensor last = at::zeros({batch, 1}, cloud.options().dtype(at::kLong));
  std::vector<at::Tensor> chosen = {last};
  chosen.reserve(count);
  while (static_cast<int64_t>(chosen.size()) < count) {
    const at::Tensor centre = cloud.gather(1, last.unsqueeze(2).expand({batch, 1, 3}));
    distance = at::minimum(distance, sum_of_squares(cloud - centre));
    last = distance.argmax(1, /*keepdim=*/true);
    chosen.push_back(last);
  }
  return at::cat(chosen, 1);
}

at::Tensor squared_distances(const at::Tensor& queries, const at::Tensor& points,
                             Distance distance) {
  check_pair(queries, points);
  return distance == Distance::kExact ? exact_distances(queries, points)
                                      : published_distances(queries, points);
}

Neighbours nearest_points(const at::Tensor& queries, const at::Tensor& points, int64_t k,
                          Distance distance) {
  check_pair(queries, points);
  SERPENTINE_CHECK(k >= 1 && k <= points.size(1), kSamplingWho,
                   "the number of neighbours must be in 1..", points.size(1),
                   ", the points of a cloud, got ", k);
  Neighbours found;
  if (distance == Distance::kExact && is_plain(points) && is_plain(queries)) {
    cpu::nearest_points(queries.detach().contiguous(), points.detach().contiguous(), k, found.index,
                        found.squared_distance);
  } else if (distance == Distance::kExact && cuda::takes_points(points) &&
             cuda::takes_points(queries) && k <= cuda::most_neighbours()) {
    cuda::nearest_points(queries.detach().contiguous(), points.detach().contiguous(), k,
                         found.index, found.squared_distance);
  } else {
    found = nearest_of_all(queries, points, k, distance);
  }
  if (!at::GradMode::is_enabled() || !(queries.requires_grad() || points.requires_grad()))
    return found;

  // the gradient needs the k distances only, not all that were looked at
  const at::Tensor again = sum_of_squares(queries.unsqueeze(2) - take_rows(points, found.index));
  found.squared_distance = found.squared_distance + (again - again.detach());
  return found;
}

at::Tensor ball_query(const at::Tensor& queries, const at::Tensor& points, double radius,
                      int64_t k) {
  check_pair(queries, points);
  SERPENTINE_CHECK(points.size(1) >= 1, kSamplingWho, "a ball query needs a point to find");
  SERPENTINE_CHECK(radius > 0 && k >= 1, kSamplingWho,
                   "a ball needs a radius above 0 and at least one ", "neighbour, got ", radius,
                   " and ", k);
  const at::NoGradGuard no_grad;
  const int64_t count = points.size(1), kept = std::min(k, count);
  if (is_plain(points) && is_plain(queries))
    return cpu::ball_query(queries.detach().contiguous(), points.detach().contiguous(),
                           static_cast<float>(radius * radius), k);
  if (cuda::takes_points(points) && cuda::takes_points(queries))
    return cuda::ball_query(queries.detach().contiguous(), points.detach().contiguous(),
                            static_cast<float>(radius * radius), k);
  const at::Tensor none = at::full({}, count, queries.options().dtype(at::kLong));
  const at::Tensor all = at::arange(count, none.options());
  std::vector<at::Tensor> found;
  for (const at::Tensor& some : queries.split(block_of(queries, points), 1)) {
    const at::Tensor inside = squared_distances(some, points) < radius * radius;
    const at::Tensor first = std::get<0>(
        at::where(inside, all, none).topk(kept, -1, /*largest=*/false, /*sorted=*/true));
    const at::Tensor nearest = first.narrow(2, 0, 1);
    const at::Tensor filled = at::where(first == none, nearest, first);
    found.push_back(filled.masked_fill(filled == none, 0));
  }
  at::Tensor index = at::cat(found, 1);
  if (kept == k) return index;
  const at::Tensor again = index.narrow(2, 0, 1).expand({-1, -1, k - kept});
  return at::cat({index, again}, 2);
}

at::Tensor take_rows(const at::Tensor& rows, const at::Tensor& index) {
  check_shape(kSamplingWho, rows, "rows", {-1, -1, -1}, "B, N, C");
  SERPENTINE_CHECK(index.dim() >= 2 && index.size(0) == rows.size(0), kSamplingWho,
                   "index must be [B, ...] with B = ", rows.size(0), ", got ", index.sizes());
  const at::Tensor first = at::arange(rows.size(0), index.options()).unsqueeze(1).mul(rows.size(1));
  const at::Tensor flat = (index.flatten(1) + first).flatten();
  std::vector<int64_t> shape = index.sizes().vec();
  shape.push_back(rows.size(2));
  return rows.flatten(0, 1).index_select(0, flat).view(shape);
}

at::Tensor interpolate_features(const at::Tensor& queries, const at::Tensor& points,
                                const at::Tensor& features, int64_t k, Distance distance) {
  check_pair(queries, points);
  check_shape(kSamplingWho, features, "features", {points.size(0), points.size(1), -1}, "B, N, C");
  if (points.size(1) == 1) return features.expand({-1, queries.size(1), -1});
  const Neighbours near = nearest_points(queries, points, std::min(k, points.size(1)), distance);
  const at::Tensor weight = 1 / (near.squared_distance + 1e-8);
  const at::Tensor share = weight / weight.sum(2, /*keepdim=*/true);
  return (take_rows(features, near.index) * share.unsqueeze(3)).sum(2);
}

}  // namespace serpentine
