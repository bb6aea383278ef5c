// Farthest points, nearest points and balls on CUDA.
//
// Products and sums are rounded apart (no fused multiply-add), so that every device chooses the
// same points; of equal distances the lower index wins.
#include <algorithm>
#include <limits>

#include <cuda_runtime.h>

#include "pointcloud/sampling_cuda.h"

namespace serpentine::cuda {
namespace {

constexpr unsigned kAll = 0xffffffffU;
constexpr int kLanes = 32;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

__device__ float squared(float x, float y, float z) {
  return __fadd_rn(__fadd_rn(__fmul_rn(x, x), __fmul_rn(y, y)), __fmul_rn(z, z));
}

__device__ float squared_apart(const float* a, const float* b) {
  return squared(__fsub_rn(a[0], b[0]), __fsub_rn(a[1], b[1]), __fsub_rn(a[2], b[2]));
}

/// A float as an integer of the same order.
__device__ unsigned ordered(float value) {
  const unsigned bits = __float_as_uint(value);
  return bits & 0x80000000U ? ~bits : bits | 0x80000000U;
}

/// The lowest index with the largest distance, over the lanes.
struct Best {
  unsigned distance, index;
  __device__ void over_warp() {
    const unsigned most = __reduce_max_sync(kAll, distance);
    index = __reduce_min_sync(kAll, distance == most ? index : kAll);
    distance = most;
  }
};

/// Over the block, for all its threads. Two sets of places, so that one barrier a round will do.
template <int kThreads>
__device__ Best farthest_of_block(Best best, int round) {
  constexpr int kWarps = kThreads / kLanes;
  __shared__ unsigned distances[2][kLanes], indices[2][kLanes];
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes, set = round & 1;
  best.over_warp();
  if (lane == 0) {
    distances[set][warp] = best.distance;
    indices[set][warp] = best.index;
  }
  __syncthreads();
  best.distance = lane < kWarps ? distances[set][lane] : 0;
  best.index = lane < kWarps ? indices[set][lane] : kAll;
  best.over_warp();
  return best;
}

/// A block a cloud, whose points and distances stay in registers.
template <int kThreads, int kEach>
__global__ void __launch_bounds__(kThreads) farthest_of_few(const FarthestCall call) {
  const int count = static_cast<int>(call.points_each);
  const float* points = call.points + blockIdx.x * 3 * call.points_each;
  int64_t* chosen = call.chosen + blockIdx.x * call.count;
  float x[kEach], y[kEach], z[kEach], distance[kEach];
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    const int i = static_cast<int>(threadIdx.x) + j * kThreads;
    const bool inside = i < count;
    x[j] = inside ? points[3 * i] : 0.f;
    y[j] = inside ? points[3 * i + 1] : 0.f;
    z[j] = inside ? points[3 * i + 2] : 0.f;
    const bool never = call.away_from_zero && squared(x[j], y[j], z[j]) <= call.near_zero;
    distance[j] = !inside ? -2.f : never ? -1.f : call.far;
  }
  unsigned last = 0;
  for (int round = 1; round <= call.count; ++round) {
    if (threadIdx.x == 0) chosen[round - 1] = last;
    if (round == call.count) break;
    const float cx = points[3 * last], cy = points[3 * last + 1], cz = points[3 * last + 2];
    float most = -3.f;
    unsigned at = 0;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      distance[j] = fminf(distance[j],
                          squared(__fsub_rn(x[j], cx), __fsub_rn(y[j], cy), __fsub_rn(z[j], cz)));
      if (distance[j] > most) {
        most = distance[j];
        at = threadIdx.x + j * kThreads;
      }
    }
    last = farthest_of_block<kThreads>({ordered(most), at}, round).index;
  }
}

/// The blocks of a cloud wait for one another; all of them must be resident. `arrived` counts up.
__device__ void wait_for_all(unsigned* arrived, unsigned target) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(arrived, 1U);
    while (*static_cast<volatile unsigned*>(arrived) < target) {
    }
    __threadfence();
  }
  __syncthreads();
}

/// Several blocks a large cloud: each leaves its farthest point, all read those of all. Distances
/// lie in memory, of which each thread reads and writes its own.
template <int kThreads>
__global__ void __launch_bounds__(kThreads) farthest_of_many(const FarthestCall call) {
  const int64_t cloud = blockIdx.y, blocks = gridDim.x;
  const float* points = call.points + cloud * 3 * call.points_each;
  float* distance = call.distance + cloud * call.points_each;
  unsigned* best_of_blocks = call.best + cloud * 4 * blocks;  // [2 rounds, blocks, 2]
  const int64_t begin = blockIdx.x * int64_t{kThreads} + threadIdx.x, step = blocks * kThreads;
  for (int64_t i = begin; i < call.points_each; i += step) {
    const bool never = call.away_from_zero && squared(points[3 * i], points[3 * i + 1],
                                                      points[3 * i + 2]) <= call.near_zero;
    distance[i] = never ? -1.f : call.far;
  }
  int64_t last = 0;
  for (int round = 1; round <= call.count; ++round) {
    if (blockIdx.x == 0 && threadIdx.x == 0) call.chosen[cloud * call.count + round - 1] = last;
    if (round == call.count) break;
    const float centre[3] = {points[3 * last], points[3 * last + 1], points[3 * last + 2]};
    Best best{0, kAll};
    for (int64_t i = begin; i < call.points_each; i += step) {
      const float nearer = fminf(distance[i], squared_apart(points + 3 * i, centre));
      distance[i] = nearer;
      if (ordered(nearer) > best.distance) best = {ordered(nearer), static_cast<unsigned>(i)};
    }
    best = farthest_of_block<kThreads>(best, round);
    if (blocks > 1) {
      volatile unsigned* here = best_of_blocks + (round & 1) * 2 * blocks;
      if (threadIdx.x == 0) {
        here[2 * blockIdx.x] = best.distance;
        here[2 * blockIdx.x + 1] = best.index;
      }
      wait_for_all(call.arrived + cloud, static_cast<unsigned>(blocks) * round);
      best = {0, kAll};
      for (int b = static_cast<int>(threadIdx.x) % kLanes; b < blocks; b += kLanes) {
        const Best other{here[2 * b], here[2 * b + 1]};
        if (other.distance > best.distance ||
            (other.distance == best.distance && other.index < best.index))
          best = other;
      }
      best.over_warp();
    }
    last = best.index;
  }
}

constexpr int kTile = 1024;     // points that a block's warps share
constexpr int kQueryWarps = 8;  // of a block, one query each

/// The k least so far, one a lane, in ascending order; equal ones in the order of their coming.
struct Nearest {
  float distance = kInfinity;
  unsigned index = 0;

  __device__ void add(float candidate, unsigned number, int k, int lane) {
    float last = __shfl_sync(kAll, distance, k - 1);
    unsigned better = __ballot_sync(kAll, candidate < last);
    while (better) {
      const int from = __ffs(static_cast<int>(better)) - 1;
      const float value = __shfl_sync(kAll, candidate, from);
      const unsigned row = __shfl_sync(kAll, number, from);
      const int place = __popc(__ballot_sync(kAll, distance <= value));
      const float before = __shfl_up_sync(kAll, distance, 1);
      const unsigned row_before = __shfl_up_sync(kAll, index, 1);
      if (lane > place) {
        distance = before;
        index = row_before;
      } else if (lane == place) {
        distance = value;
        index = row;
      }
      last = __shfl_sync(kAll, distance, k - 1);
      better &= better - 1;
      better &= __ballot_sync(kAll, candidate < last);
    }
  }
};

template <bool kRows>
__global__ void __launch_bounds__(kQueryWarps* kLanes) nearest_kernel(const NearestCall call) {
  __shared__ float tile[3][kTile];
  const int lane = threadIdx.x, thread = threadIdx.y * kLanes + lane;
  const int64_t cloud = blockIdx.y, query = blockIdx.x * int64_t{kQueryWarps} + threadIdx.y;
  const bool asked = query < call.queries_each;
  const int64_t row = cloud * call.queries_each + (asked ? query : 0);
  const int k = static_cast<int>(call.k);
  Nearest nearest;
  if constexpr (kRows) {
    if (!asked) return;
    const float* distances = call.rows + row * call.points_each;
    for (int64_t first = 0; first < call.points_each; first += kLanes) {
      const int64_t i = first + lane;
      const float value = i < call.points_each ? distances[i] : kInfinity;
      nearest.add(value, static_cast<unsigned>(i), k, lane);
    }
  } else {
    const float* points = call.points + cloud * 3 * call.points_each;
    const float* place = call.queries + 3 * row;
    const float x = place[0], y = place[1], z = place[2];
    for (int64_t begin = 0; begin < call.points_each; begin += kTile) {
      const int here = static_cast<int>(min(call.points_each - begin, int64_t{kTile}));
      __syncthreads();
      for (int i = thread; i < 3 * here; i += kQueryWarps * kLanes)
        tile[i % 3][i / 3] = points[3 * begin + i];
      __syncthreads();
      if (!asked) continue;
      for (int first = 0; first < here; first += kLanes) {
        const int i = first + lane;
        float value = kInfinity;
        if (i < here)
          value =
              squared(__fsub_rn(x, tile[0][i]), __fsub_rn(y, tile[1][i]), __fsub_rn(z, tile[2][i]));
        nearest.add(value, static_cast<unsigned>(begin + i), k, lane);
      }
    }
    if (!asked) return;
  }
  if (lane >= k) return;
  call.index[row * k + lane] = nearest.index;
  call.distance[row * k + lane] = nearest.distance;
}

/// A warp a query: points in their sequence, until k are found.
__global__ void __launch_bounds__(kQueryWarps* kLanes) ball_kernel(const BallCall call) {
  const int lane = threadIdx.x;
  const int64_t cloud = blockIdx.y, query = blockIdx.x * int64_t{kQueryWarps} + threadIdx.y;
  if (query >= call.queries_each) return;
  const int64_t row = cloud * call.queries_each + query;
  const float* points = call.points + cloud * 3 * call.points_each;
  const float centre[3] = {call.queries[3 * row], call.queries[3 * row + 1],
                           call.queries[3 * row + 2]};
  int64_t* index = call.index + row * call.k;
  int64_t found = 0, leading = 0;
  for (int64_t first = 0; first < call.points_each && found < call.k; first += kLanes) {
    const int64_t i = first + lane;
    const bool inside = i < call.points_each && squared_apart(centre, points + 3 * i) < call.limit;
    const unsigned all = __ballot_sync(kAll, inside);
    if (all == 0) continue;
    if (found == 0) leading = first + __ffs(static_cast<int>(all)) - 1;
    const int64_t at = found + __popc(all & ((1U << lane) - 1));
    if (inside && at < call.k) index[at] = i;
    found += __popc(all);
  }
  for (int64_t at = min(found, call.k) + lane; at < call.k; at += kLanes) index[at] = leading;
}

const char* text_of_last_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

template <int kThreads, int kEach>
void launch_few(const FarthestCall& call, cudaStream_t queue) {
  farthest_of_few<kThreads, kEach><<<static_cast<unsigned>(call.batch), kThreads, 0, queue>>>(call);
}

/// As many blocks a cloud as are resident together, and no more than there are points for.
const char* launch_many(FarthestCall call, cudaStream_t queue) {
  constexpr int kThreads = 512;
  constexpr int64_t kEachThread = 4;  // points that pay for a block's part in the waiting
  int device = 0, processors = 0, each = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, farthest_of_many<kThreads>, kThreads, 0);
  const int64_t resident = int64_t{processors} * each;
  const int64_t wanted = (call.points_each + kEachThread * kThreads - 1) / (kEachThread * kThreads);
  const int64_t blocks =
      std::clamp(resident / call.batch, int64_t{1}, std::min(wanted, kMostFarthestBlocks));
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(call.batch));
  if (blocks == 1) {
    farthest_of_many<kThreads><<<grid, kThreads, 0, queue>>>(call);
    return text_of_last_error();
  }
  void* arguments[] = {&call};
  cudaMemsetAsync(call.arrived, 0, sizeof(unsigned) * static_cast<size_t>(call.batch), queue);
  const cudaError_t error =
      cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(&farthest_of_many<kThreads>), grid,
                                  dim3(kThreads), arguments, 0, queue);
  return error == cudaSuccess ? text_of_last_error() : cudaGetErrorString(error);
}

dim3 query_blocks(int64_t queries, int64_t batch) {
  return {static_cast<unsigned>((queries + kQueryWarps - 1) / kQueryWarps),
          static_cast<unsigned>(batch)};
}

}  // namespace

const char* farthest(const FarthestCall& call, void* stream) {
  if (call.batch == 0) return nullptr;
  const auto queue = static_cast<cudaStream_t>(stream);
  if (call.points_each <= 512) {
    launch_few<128, 4>(call, queue);
  } else if (call.points_each <= 1024) {
    launch_few<256, 4>(call, queue);
  } else if (call.points_each <= 2048) {
    launch_few<256, 8>(call, queue);
  } else if (call.points_each <= 4096) {
    launch_few<512, 8>(call, queue);
  } else if (call.points_each <= kFewPoints) {
    launch_few<1024, 8>(call, queue);
  } else {
    return launch_many(call, queue);
  }
  return text_of_last_error();
}

const char* nearest(const NearestCall& call, void* stream) {
  if (call.batch == 0 || call.queries_each == 0) return nullptr;
  const dim3 blocks = query_blocks(call.queries_each, call.batch), threads(kLanes, kQueryWarps);
  const auto queue = static_cast<cudaStream_t>(stream);
  if (call.rows) {
    nearest_kernel<true><<<blocks, threads, 0, queue>>>(call);
  } else {
    nearest_kernel<false><<<blocks, threads, 0, queue>>>(call);
  }
  return text_of_last_error();
}

const char* ball(const BallCall& call, void* stream) {
  if (call.batch == 0 || call.queries_each == 0) return nullptr;
  ball_kernel<<<query_blocks(call.queries_each, call.batch), dim3(kLanes, kQueryWarps), 0,
                static_cast<cudaStream_t>(stream)>>>(call);
  return text_of_last_error();
}

}  // namespace serpentine::cuda
