#include "pointcloud/geometry_cpu.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include "core/ops/parallel.h"
#include "pointcloud/kd_tree.h"
#include "pointcloud/radix_sort.h"

namespace serpentine::cpu {
namespace {

constexpr int64_t kNormalGrain = 256;  // points a thread takes at a time
constexpr int kSweeps = 12;            // of rotations, which settle after some five

using Symmetric = std::array<double, 6>;  // xx yy zz xy xz yz

struct LeastVariance {
  std::array<double, 3> direction;
  double share;  // of the least variance in all three
};

/// The eigenvector of the least eigenvalue by Jacobi's rotations. Golub & Van Loan, "Matrix
/// Computations", section 8.5.
LeastVariance least_variance(const Symmetric& of) {
  double a[3][3] = {{of[0], of[3], of[4]}, {of[3], of[1], of[5]}, {of[4], of[5], of[2]}};
  double v[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
  const double total = of[0] + of[1] + of[2];
  constexpr int kPairs[3][2] = {{0, 1}, {0, 2}, {1, 2}};
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    const double off = std::abs(a[0][1]) + std::abs(a[0][2]) + std::abs(a[1][2]);
    if (!(off > 1e-15 * total)) break;
    for (const auto& pair : kPairs) {
      const int p = pair[0], q = pair[1], r = 3 - p - q;
      if (a[p][q] == 0) continue;
      const double theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
      const double t = (theta < 0 ? -1 : 1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
      const double c = 1 / std::sqrt(t * t + 1), s = t * c, both = a[p][q];
      a[p][p] -= t * both;
      a[q][q] += t * both;
      a[p][q] = a[q][p] = 0;
      const double rp = a[r][p], rq = a[r][q];
      a[r][p] = a[p][r] = c * rp - s * rq;
      a[r][q] = a[q][r] = s * rp + c * rq;
      for (auto& row : v) {
        const double vp = row[p], vq = row[q];
        row[p] = c * vp - s * vq;
        row[q] = s * vp + c * vq;
      }
    }
  }
  int least = 0;
  for (int i = 1; i < 3; ++i)
    if (a[i][i] < a[least][least]) least = i;
  const double share = total > 0 ? std::max(a[least][least], 0.0) / total : 0;
  return {{v[0][least], v[1][least], v[2][least]}, share};
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

VoxelGrid voxel_grid(const at::Tensor& cells, const at::Tensor& away) {
  const int64_t count = cells.size(0);
  const at::Tensor cell = cells.contiguous(), place = away.contiguous();
  const auto *c = cell.const_data_ptr<double>(), *p = place.const_data_ptr<double>();
  std::array<uint64_t, 3> many{};  // cells along each axis
  for (int64_t i = 0; i < 3 * count; ++i) {
    auto& most = many[static_cast<size_t>(i % 3)];
    most = std::max(most, static_cast<uint64_t>(c[i]) + 1);
  }
  std::vector<KeyedRow> rows(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const auto x = static_cast<uint64_t>(c[3 * i]), y = static_cast<uint64_t>(c[3 * i + 1]),
               z = static_cast<uint64_t>(c[3 * i + 2]);
    rows[static_cast<size_t>(i)] = {(z * many[1] + y) * many[0] + x, i};
  }
  // equal keys stay in their sequence, so a voxel's first point leads
  sort_by_key(rows, many[0] * many[1] * many[2] - 1);

  std::vector<int64_t> start;
  for (size_t i = 0; i < rows.size(); ++i)
    if (i == 0 || rows[i].key != rows[i - 1].key) start.push_back(static_cast<int64_t>(i));
  const auto voxels = static_cast<int64_t>(start.size());
  start.push_back(count);
  const auto whole = at::TensorOptions().dtype(at::kLong);
  VoxelGrid grid = {at::empty({count}, whole), at::empty({voxels}, whole),
                    at::empty({voxels}, whole), at::empty({voxels, 3}, place.options())};
  auto *voxel = grid.voxel.mutable_data_ptr<int64_t>(),
       *first = grid.first.mutable_data_ptr<int64_t>(),
       *members = grid.count.mutable_data_ptr<int64_t>();
  auto* centroid = grid.centroids.mutable_data_ptr<double>();
  parallel_for(0, voxels, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      const int64_t from = start[static_cast<size_t>(m)], to = start[static_cast<size_t>(m + 1)];
      std::array<double, 3> sum{};
      for (int64_t i = from; i < to; ++i) {
        const int64_t row = rows[static_cast<size_t>(i)].row;
        voxel[row] = m;
        for (size_t axis = 0; axis < 3; ++axis)
          sum[axis] += p[3 * row + static_cast<int64_t>(axis)];
      }
      first[m] = rows[static_cast<size_t>(from)].row;
      members[m] = to - from;
      for (size_t axis = 0; axis < 3; ++axis)
        centroid[3 * m + static_cast<int64_t>(axis)] = sum[axis] / static_cast<double>(to - from);
    }
  });
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
        for (int64_t i = begin; i < end; ++i) {
          const int64_t row = tree.order()[static_cast<size_t>(i)];
          tree.nearest(places + 3 * row, k, index.data(), distance.data());
          const auto found = least_variance(spread_of(from + 3 * b * count, index.data(), k));
          for (size_t axis = 0; axis < 3; ++axis)
            direction[3 * (b * count + row) + static_cast<int64_t>(axis)] =
                static_cast<scalar_t>(found.direction[axis]);
          curvature[b * count + row] = static_cast<scalar_t>(found.share);
        }
      });
    }
  });
  return out;
}

}  // namespace serpentine::cpu
