#include "pointcloud/geometry_cpu.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include "core/ops/parallel.h"
#include "pointcloud/kd_tree.h"
#include "pointcloud/radix_sort.h"
#include "pointcloud/spread_kernels.h"

namespace serpentine::cpu {
namespace {

constexpr int64_t kNormalGrain = 256;  // points a thread takes at a time
constexpr int64_t kTableCells = 8;     // cells a point up to which all are counted, not sorted
constexpr int64_t kTableLeast = 4096;  // and so many in any case

using Symmetric = std::array<double, kSpreadParts>;

struct CloudBox {
  std::array<double, 3> low{}, high{};
  bool finite = true;
};

template <class T>
CloudBox box_of(const T* points, int64_t count) {
  std::array<T, 3> low = {points[0], points[1], points[2]}, high = low;
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) {
    for (size_t axis = 0; axis < 3; ++axis) {
      const T value = points[3 * i + static_cast<int64_t>(axis)];
      low[axis] = value < low[axis] ? value : low[axis];
      high[axis] = value > high[axis] ? value : high[axis];
      finite &= value - value == 0;
    }
  }
  CloudBox box;
  box.finite = finite;
  for (size_t axis = 0; axis < 3; ++axis) {
    box.low[axis] = static_cast<double>(low[axis]);
    box.high[axis] = static_cast<double>(high[axis]);
  }
  return box;
}

/// Turns the key of each point's cell, below `cells`, into the number of that cell among those that
/// hold a point; returns how many do.
int64_t number_cells(int64_t* key, int64_t count, int64_t cells) {
  if (cells <=
      std::min<int64_t>(kTableCells * count + kTableLeast, std::numeric_limits<int32_t>::max())) {
    std::vector<int32_t> number(static_cast<size_t>(cells));
    for (int64_t i = 0; i < count; ++i) number[static_cast<size_t>(key[i])] = 1;
    int32_t voxels = 0;
    for (auto& cell : number)
      if (cell != 0) cell = voxels++;
    for (int64_t i = 0; i < count; ++i) key[i] = number[static_cast<size_t>(key[i])];
    return voxels;
  }
  std::vector<KeyedRow> rows(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    rows[static_cast<size_t>(i)] = {static_cast<uint64_t>(key[i]), i};
  sort_by_key(rows, static_cast<uint64_t>(cells - 1));
  int64_t voxels = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i > 0 && rows[i].key != rows[i - 1].key) ++voxels;
    key[rows[i].row] = voxels;
  }
  return voxels + 1;
}

template <class T>
VoxelGrid voxel_grid_of(const at::Tensor& points, double side) {
  const int64_t count = points.size(0);
  const T* from = points.const_data_ptr<T>();
  const CloudBox box = box_of(from, count);
  std::array<int64_t, 3> many{};  // cells along each axis
  double widest = box.finite ? 0 : std::numeric_limits<double>::quiet_NaN();
  for (size_t axis = 0; axis < 3; ++axis)
    widest = std::max(widest, std::floor((box.high[axis] - box.low[axis]) / side));
  check_cells(widest, side);
  for (size_t axis = 0; axis < 3; ++axis)
    many[axis] = static_cast<int64_t>((box.high[axis] - box.low[axis]) / side) + 1;

  const auto whole = at::TensorOptions().dtype(at::kLong);
  VoxelGrid grid;
  grid.voxel = at::empty({count}, whole);
  auto* voxel = grid.voxel.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) {
    std::array<int64_t, 3> cell{};
    for (size_t axis = 0; axis < 3; ++axis)
      cell[axis] = static_cast<int64_t>(
          (static_cast<double>(from[3 * i + static_cast<int64_t>(axis)]) - box.low[axis]) / side);
    voxel[i] = (cell[2] * many[1] + cell[1]) * many[0] + cell[0];
  }
  const int64_t voxels = number_cells(voxel, count, many[0] * many[1] * many[2]);

  grid.first = at::empty({voxels}, whole);
  grid.count = at::empty({voxels}, whole);
  grid.centroids = at::empty({voxels, 3}, points.options());
  auto *first = grid.first.mutable_data_ptr<int64_t>(),
       *members = grid.count.mutable_data_ptr<int64_t>();
  std::fill_n(members, voxels, 0);
  std::vector<double> sum(static_cast<size_t>(3 * voxels));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t m = voxel[i];
    if (members[m]++ == 0) first[m] = i;
    for (size_t axis = 0; axis < 3; ++axis)
      sum[static_cast<size_t>(3 * m) + axis] +=
          static_cast<double>(from[3 * i + static_cast<int64_t>(axis)]) - box.low[axis];
  }
  auto* centroid = grid.centroids.mutable_data_ptr<T>();
  for (int64_t m = 0; m < voxels; ++m)
    for (size_t axis = 0; axis < 3; ++axis)
      centroid[3 * m + static_cast<int64_t>(axis)] = static_cast<T>(
          sum[static_cast<size_t>(3 * m) + axis] / static_cast<double>(members[m]) + box.low[axis]);
  return grid;
}

template <class T>
Symmetric spread_of(const T* points, const int64_t* members, int64_t k) {
  std::array<double, 3> mean{};
  for (int64_t i = 0; i < k; ++i)
    for (size_t axis = 0; axis < 3; ++axis)
      mean[axis] += static_cast<double>(points[3 * members[i] + static_cast<int64_t>(axis)]);
  for (auto& value : mean) value /= static_cast<double>(k);
  Symmetric sum{};
  for (int64_t i = 0; i < k; ++i) {
    const T* point = points + 3 * members[i];
    const double x = static_cast<double>(point[0]) - mean[0],
                 y = static_cast<double>(point[1]) - mean[1],
                 z = static_cast<double>(point[2]) - mean[2];
    sum[0] += x * x;
    sum[1] += y * y;
    sum[2] += z * z;
    sum[3] += x * y;
    sum[4] += x * z;
    sum[5] += y * z;
  }
  return sum;
}

}  // namespace

VoxelGrid voxel_grid(const at::Tensor& points, double side) {
  VoxelGrid grid;
  const bool known = points.scalar_type() == at::kFloat || points.scalar_type() == at::kDouble;
  const at::Tensor cloud = (known ? points : points.to(at::kDouble)).detach().contiguous();
  AT_DISPATCH_FLOATING_TYPES(cloud.scalar_type(), "voxel_grid",
                             [&] { grid = voxel_grid_of<scalar_t>(cloud, side); });
  grid.centroids = grid.centroids.to(points.scalar_type());
  return grid;
}

SurfaceNormals surface_normals(const at::Tensor& points, int64_t k) {
  const int64_t batch = points.size(0), count = points.size(1);
  SurfaceNormals out = {at::empty_like(points), at::empty({batch, count}, points.options())};
  // neighbours from the least coordinates, so that float32 keeps its digits far from zero
  const at::Tensor least = std::get<0>(points.min(1, /*keepdim=*/true));
  const at::Tensor near = (points - least).to(at::kFloat).contiguous();
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "surface_normals", [&] {
    const auto* from = points.const_data_ptr<scalar_t>();
    auto* direction = out.direction.mutable_data_ptr<scalar_t>();
    auto* curvature = out.curvature.mutable_data_ptr<scalar_t>();
    for (int64_t b = 0; b < batch; ++b) {
      const float* places = near.const_data_ptr<float>() + 3 * b * count;
      const KdTree tree(places, count);
      parallel_for(0, count, kNormalGrain, [&](int64_t begin, int64_t end) {
        std::vector<int64_t> index(static_cast<size_t>(k));
        std::vector<float> distance(static_cast<size_t>(k));
        std::array<int64_t, kSpreads> row{};
        for (int64_t i = begin; i < end; i += kSpreads) {
          const int64_t some = std::min(kSpreads, end - i);
          Spreads spread{};
          for (int64_t n = 0; n < some; ++n) {
            row[static_cast<size_t>(n)] = tree.order()[static_cast<size_t>(i + n)];
            tree.nearest(places + 3 * row[static_cast<size_t>(n)], k, index.data(),
                         distance.data());
            const Symmetric one = spread_of(from + 3 * b * count, index.data(), k);
            for (size_t part = 0; part < one.size(); ++part)
              spread.part[part][static_cast<size_t>(n)] = one[part];
          }
          const LeastVariances found = least_variances(spread);
          for (int64_t n = 0; n < some; ++n) {
            const auto at = static_cast<size_t>(n);
            const int64_t out_row = b * count + row[at];
            for (size_t axis = 0; axis < 3; ++axis)
              direction[3 * out_row + static_cast<int64_t>(axis)] =
                  static_cast<scalar_t>(found.direction[axis][at]);
            curvature[out_row] = static_cast<scalar_t>(found.share[at]);
          }
        }
      });
    }
  });
  return out;
}

}  // namespace serpentine::cpu
