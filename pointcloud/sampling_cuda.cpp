// Sampling on CUDA: tensors as the kernels' plain memory.
#include "pointcloud/sampling_cuda.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>

#include "core/ops/cuda_memory.h"
#include "pointcloud/sampling_device.h"

namespace serpentine::cuda {
namespace {

at::Tensor new_index(const at::Tensor& like, at::IntArrayRef sizes) {
  return at::empty(sizes, like.options().dtype(at::kLong));
}

}  // namespace

bool takes_points(const at::Tensor& points) {
  constexpr int64_t kMostClouds = 65535, kMostPoints = INT32_MAX;
  return points.is_cuda() && points.scalar_type() == at::kFloat && points.size(0) <= kMostClouds &&
         points.size(1) < kMostPoints;
}

int64_t most_neighbours() { return kMostNeighbours; }

at::Tensor farthest_points(const at::Tensor& points, int64_t count, bool away_from_zero,
                           float near_zero, float far) {
  const c10::cuda::CUDAGuard guard(points.device());
  FarthestCall call;
  call.batch = points.size(0);
  call.points_each = points.size(1);
  call.count = count;
  const at::Tensor chosen = new_index(points, {call.batch, count});
  at::Tensor distance, whole;
  if (call.points_each > kFewPoints) {
    distance = at::empty({call.batch, call.points_each}, points.options());
    whole =
        at::empty({call.batch * (4 * kMostFarthestBlocks + 1)}, points.options().dtype(at::kInt));
    call.distance = distance.mutable_data_ptr<float>();
    call.best = reinterpret_cast<unsigned*>(whole.mutable_data_ptr<int32_t>());
    call.arrived = call.best + call.batch * 4 * kMostFarthestBlocks;
  }
  call.points = points.const_data_ptr<float>();
  call.chosen = chosen.mutable_data_ptr<int64_t>();
  call.away_from_zero = away_from_zero;
  call.near_zero = near_zero;
  call.far = far;
  check_launch("farthest points", farthest(call, stream()));
  return chosen;
}

void nearest_points(const at::Tensor& queries, const at::Tensor& points, int64_t k,
                    at::Tensor& index, at::Tensor& squared_distance) {
  const c10::cuda::CUDAGuard guard(points.device());
  index = new_index(points, {queries.size(0), queries.size(1), k});
  squared_distance = at::empty(index.sizes(), points.options());
  NearestCall call;
  call.queries = queries.const_data_ptr<float>();
  call.points = points.const_data_ptr<float>();
  call.index = index.mutable_data_ptr<int64_t>();
  call.distance = squared_distance.mutable_data_ptr<float>();
  call.batch = queries.size(0);
  call.queries_each = queries.size(1);
  call.points_each = points.size(1);
  call.k = k;
  check_launch("nearest points", nearest(call, stream()));
}

void nearest_of_rows(const at::Tensor& distances, int64_t k, at::Tensor& index,
                     at::Tensor& squared_distance) {
  const c10::cuda::CUDAGuard guard(distances.device());
  const at::Tensor rows = distances.contiguous();
  index = new_index(rows, {rows.size(0), rows.size(1), k});
  squared_distance = at::empty(index.sizes(), rows.options());
  NearestCall call;
  call.rows = rows.const_data_ptr<float>();
  call.index = index.mutable_data_ptr<int64_t>();
  call.distance = squared_distance.mutable_data_ptr<float>();
  call.batch = rows.size(0);
  call.queries_each = rows.size(1);
  call.points_each = rows.size(2);
  call.k = k;
  check_launch("nearest points", nearest(call, stream()));
}

at::Tensor ball_query(const at::Tensor& queries, const at::Tensor& points, float limit, int64_t k) {
  const c10::cuda::CUDAGuard guard(points.device());
  const at::Tensor index = new_index(points, {queries.size(0), queries.size(1), k});
  BallCall call;
  call.queries = queries.const_data_ptr<float>();
  call.points = points.const_data_ptr<float>();
  call.index = index.mutable_data_ptr<int64_t>();
  call.batch = queries.size(0);
  call.queries_each = queries.size(1);
  call.points_each = points.size(1);
  call.k = k;
  call.limit = limit;
  check_launch("ball query", ball(call, stream()));
  return index;
}

}  // namespace serpentine::cuda
