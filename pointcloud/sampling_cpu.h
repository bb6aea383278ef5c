// What sampling.h does on a CPU with float32 points.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace serpentine::cpu {

/// points: float32 [B, N, 3], contiguous; never: bool [B, N] or undefined, points that are not to
/// be chosen. int64 [B, count].
at::Tensor farthest_points(const at::Tensor& points, const at::Tensor& never, int64_t count);

/// queries: float32 [B, S, 3], points: float32 [B, N, 3], both contiguous. Fills index: int64
/// [B, S, k] and squared_distance: float32 [B, S, k].
void nearest_points(const at::Tensor& queries, const at::Tensor& points, int64_t k,
                    at::Tensor& index, at::Tensor& squared_distance);

/// The first k points, by index, whose squared distance is below `limit`; where there are fewer,
/// the first one again; where there is none, point 0. int64 [B, S, k].
at::Tensor ball_query(const at::Tensor& queries, const at::Tensor& points, float limit, int64_t k);

/// [n] numbers of points that lie near one another one after the other. points: x y z of each.
std::vector<int64_t> near_sequence(const float* points, int64_t count);

}  // namespace serpentine::cpu
