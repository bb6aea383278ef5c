// Which points stand for a cloud, and which are neighbours: farthest points, nearest points, balls,
// interpolation.
//
// B batch, N points, S samples or queries, k neighbours, C channels. Everything runs where the
// points are and waits for no GPU; indices carry no gradient, distances and features do.
#pragma once

#include <ATen/core/Tensor.h>

namespace serpentine {

/// How published programs choose farthest points; both begin with point 0 and break ties by the
/// lower index.
enum class FarthestRule {
  kAllPoints,    // openpoints (PointNeXt, Point Cloud Mamba)
  kAwayFromZero  // pointnet2_ops (PointMamba, Mamba3D): points with |p|^2 <= 1e-3 are never chosen,
                 // but for point 0
};

/// Farthest point sampling: each new point has the largest distance from those chosen before.
/// points: [B, N, 3]; count in 1..N. Returns int64 [B, count] in order of choice. Cost: count * N
/// distances a cloud. Eldar et al., IEEE TIP 6 (1997); Qi et al., arXiv 1706.02413.
at::Tensor farthest_points(const at::Tensor& points, int64_t count,
                           FarthestRule rule = FarthestRule::kAllPoints);

enum class Distance {
  kExact,     // sums of squared differences
  kPublished  // |a|^2 + |b|^2 - 2 a b in one matrix product, as Point Cloud Mamba: for its weights;
              // near points lose their digits, and a distance may fall below 0
};

/// Squared distances of every query from every point. queries: [B, S, 3], points: [B, N, 3] ->
/// [B, S, N], differentiable.
at::Tensor squared_distances(const at::Tensor& queries, const at::Tensor& points,
                             Distance distance = Distance::kExact);

struct Neighbours {
  at::Tensor index;             // int64 [B, S, k]
  at::Tensor squared_distance;  // [B, S, k], differentiable
};

/// The k nearest points of each query, the nearest first; k in 1..N. On a CPU through a tree (of
/// points as near, the lower index first); on a GPU a warp a query, for up to 32 neighbours of
/// float32 points; otherwise, and with kPublished, through all distances of a block of queries:
/// some 64 MB at a time, whatever the size.
Neighbours nearest_points(const at::Tensor& queries, const at::Tensor& points, int64_t k,
                          Distance distance = Distance::kExact);

/// The first k points, by index, closer than `radius` (in the unit of the points) to each query;
/// where there are fewer, the first one again; where there is none, point 0. int64 [B, S, k]. Qi et
/// al., arXiv 1706.02413, as pointnet2_ops.
at::Tensor ball_query(const at::Tensor& queries, const at::Tensor& points, double radius,
                      int64_t k);

/// Rows by index: rows [B, N, C], index int64 [B, ...] -> [B, ..., C]. Differentiable, with a
/// deterministic gradient on a CPU.
at::Tensor take_rows(const at::Tensor& rows, const at::Tensor& index);

/// Features at queries from those of their k nearest points, weighted by 1 / (d^2 + 1e-8).
/// features: [B, N, C] -> [B, S, C]. With one point it is copied. Qi et al., arXiv 1706.02413,
/// equation 2.
at::Tensor interpolate_features(const at::Tensor& queries, const at::Tensor& points,
                                const at::Tensor& features, int64_t k = 3,
                                Distance distance = Distance::kExact);

}  // namespace serpentine
