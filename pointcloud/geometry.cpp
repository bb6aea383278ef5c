#include "pointcloud/geometry.h"

#include <tuple>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/check.h"
#include "pointcloud/geometry_cpu.h"
#include "pointcloud/sampling.h"

namespace serpentine {
namespace {

constexpr const char* kVoxelWho = "voxel grid";
constexpr int64_t kCells = int64_t{1} << 20;  // along an axis, at most

SurfaceNormals normals_of_all(const at::Tensor& points, int64_t k) {
  // from the least coordinates, so that float32 keeps its digits far from zero
  const at::Tensor least = std::get<0>(points.min(1, /*keepdim=*/true));
  const at::Tensor near = points - least;
  const at::Tensor members = take_rows(near, nearest_points(near, near, k).index);
  const at::Tensor apart = members - members.mean(2, /*keepdim=*/true);
  const at::Tensor spread = at::matmul(apart.transpose(2, 3), apart) / static_cast<double>(k);
  const auto [variances, directions] = at::linalg_eigh(spread);  // ascending
  const at::Tensor total = variances.clamp_min(0).sum(-1);
  SurfaceNormals out;
  out.curvature =
      at::where(total > 0, variances.select(-1, 0).clamp_min(0) / total, at::zeros_like(total));
  out.direction = directions.select(-1, 0);
  return out;
}

}  // namespace

void cpu::check_cells(double widest, double side) {
  SERPENTINE_CHECK(widest < static_cast<double>(kCells), kVoxelWho, "cells of side ", side,
                   " would be ", widest + 1, " along an axis, more than ", kCells,
                   "; are there points that are not finite or far off?");
}

VoxelGrid voxel_grid(const at::Tensor& points, double side) {
  check_shape(kVoxelWho, points, "points", {-1, 3}, "N, 3");
  SERPENTINE_CHECK(side > 0, kVoxelWho, "a cell's side must be above 0, got ", side);
  const int64_t count = points.size(0);
  VoxelGrid grid;
  const auto whole = points.options().dtype(at::kLong);
  if (count == 0) {
    grid.voxel = grid.first = grid.count = at::empty({0}, whole);
    grid.centroids = points.detach();
    return grid;
  }
  if (points.is_cpu()) return cpu::voxel_grid(points, side);
  const at::Tensor exact = points.detach().to(at::kDouble);
  const at::Tensor origin = std::get<0>(exact.min(0));
  const at::Tensor away = exact - origin;
  const at::Tensor cells = (away / side).floor();
  cpu::check_cells(cells.max().item<double>(), side);
  const auto axes = cells.to(at::kLong).unbind(1);
  const at::Tensor key = (axes[2] * kCells + axes[1]) * kCells + axes[0];

  // a stable sort keeps the points of a voxel in their sequence, so its first one leads
  const auto [sorted, order] = key.sort(std::optional<bool>(true), 0, false);
  const at::Tensor begins =
      at::cat({at::ones({1}, whole), (sorted.slice(0, 1) != sorted.slice(0, 0, -1)).to(at::kLong)});
  const at::Tensor number = begins.cumsum(0) - 1, start = begins.nonzero().squeeze(1);
  const at::Tensor end = at::cat({start.slice(0, 1), at::full({1}, count, whole)});
  grid.voxel = at::empty({count}, whole).index_copy(0, order, number);
  grid.first = order.index_select(0, start);
  grid.count = end - start;
  const at::Tensor sums =
      at::cat({at::zeros({1, 3}, exact.options()), away.index_select(0, order).cumsum(0)});
  const at::Tensor sum = sums.index_select(0, end) - sums.index_select(0, start);
  grid.centroids = (sum / grid.count.unsqueeze(1) + origin).to(points.scalar_type());
  return grid;
}

SurfaceNormals surface_normals(const at::Tensor& points, int64_t k, const at::Tensor& towards) {
  constexpr const char* kWho = "surface normals";
  check_shape(kWho, points, "points", {-1, -1, 3}, "B, N, 3");
  SERPENTINE_CHECK(k >= 3 && k <= points.size(1), kWho, "the number of neighbours must be in 3..",
                   points.size(1), ", the points of a cloud, got ", k);
  const at::NoGradGuard no_grad;

  const bool here = points.is_cpu() && at::isFloatingType(points.scalar_type());
  SurfaceNormals out =
      here ? cpu::surface_normals(points.detach().contiguous(), k) : normals_of_all(points, k);
  if (here && !towards.defined()) return out;
  at::Tensor sign;
  if (towards.defined()) {
    const at::Tensor place = (towards.dim() == 1 ? towards.unsqueeze(0) : towards).unsqueeze(1);
    sign = ((place - points) * out.direction).sum(-1, /*keepdim=*/true);
  } else {
    sign = out.direction.gather(-1, out.direction.abs().argmax(-1, /*keepdim=*/true));
  }
  out.direction = at::where(sign < 0, -out.direction, out.direction);
  return out;
}

}  // namespace serpentine
