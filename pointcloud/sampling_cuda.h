// What the CUDA kernels of sampling know: plain memory. B clouds, N points, S queries.
#pragma once

#include <cstdint>

namespace serpentine::cuda {

inline constexpr int64_t kMostNeighbours = 32;  // a lane of a warp holds each

struct FarthestCall {
  const float* points = nullptr;  // [B, N, 3]
  float* distance = nullptr;      // [B, N], this and what follows for clouds above kFewPoints alone
  unsigned* best = nullptr;       // [B, 4 * kMostFarthestBlocks]
  unsigned* arrived = nullptr;    // [B]
  int64_t* chosen = nullptr;      // [B, count]
  int64_t batch = 0, points_each = 0, count = 0;
  bool away_from_zero = false;  // points with |p|^2 <= near_zero are never chosen
  float far = 0, near_zero = 0;
};
inline constexpr int64_t kMostFarthestBlocks = 512;  // of one cloud
inline constexpr int64_t kFewPoints = 8192;          // of a cloud that fits a block's registers

struct NearestCall {
  const float* queries = nullptr;  // [B, S, 3]
  const float* points = nullptr;   // [B, N, 3]
  const float* rows = nullptr;     // [B, S, N]: distances that are there; then no points are read
  int64_t* index = nullptr;        // [B, S, k]
  float* distance = nullptr;       // [B, S, k]
  int64_t batch = 0, queries_each = 0, points_each = 0, k = 0;  // k <= kMostNeighbours
};

struct BallCall {
  const float* queries = nullptr;
  const float* points = nullptr;
  int64_t* index = nullptr;  // [B, S, k]
  int64_t batch = 0, queries_each = 0, points_each = 0, k = 0;
  float limit = 0;  // of the squared distance
};

/// Launch on `stream` (a cudaStream_t). Return a CUDA error's text, or null.
const char* farthest(const FarthestCall& call, void* stream);
const char* nearest(const NearestCall& call, void* stream);
const char* ball(const BallCall& call, void* stream);

}  // namespace serpentine::cuda
