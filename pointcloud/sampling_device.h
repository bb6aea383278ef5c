// What a GPU brings to sampling.h: the same, on float32 points, in one launch each.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace serpentine::cuda {

/// Whether the kernels take these points: float32 on a GPU, in a build with CUDA, in at most 65,535
/// clouds of fewer than 2^31 points.
bool takes_points(const at::Tensor& points);
/// Neighbours that nearest_points finds.
int64_t most_neighbours();

/// points: [B, N, 3], contiguous. Points with |p|^2 <= near_zero are never chosen when
/// `away_from_zero`; `far`: the distance before the first choice. int64 [B, count].
at::Tensor farthest_points(const at::Tensor& points, int64_t count, bool away_from_zero,
                           float near_zero, float far);

/// Fills index: int64 [B, S, k] and squared_distance: float32 [B, S, k].
void nearest_points(const at::Tensor& queries, const at::Tensor& points, int64_t k,
                    at::Tensor& index, at::Tensor& squared_distance);
/// The same of distances [B, S, N] that are there.
void nearest_of_rows(const at::Tensor& distances, int64_t k, at::Tensor& index,
                     at::Tensor& squared_distance);

/// As ball_query, with the squared radius. int64 [B, S, k].
at::Tensor ball_query(const at::Tensor& queries, const at::Tensor& points, float limit, int64_t k);

}  // namespace serpentine::cuda
