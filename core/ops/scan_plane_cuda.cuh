// The selective scan of one state on CUDA where every branch visits every token of a small plane
// once (cross-scans): one block walks all sequences of 32 channels and adds what the branches give
// to a token in shared memory, so that y, or the gradient of u, is written once and no row by
// position exists.
//
// A lane stands for a channel, a warp for a run of eight steps. As in scan_few_cuda.cuh every run
// is walked from zero, the runs' ends are exchanged, and each is walked again from its true start.
// The blocks run through the sequences without a pause: while a tile is walked, the next one's rows
// are on their way and those of the one after it are looked up.
#pragma once

#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda {

inline constexpr int kPlaneSteps = 8;       // of a run
inline constexpr int kPlaneSequences = 64;  // at most, of a call
inline constexpr int kPlaneTokens = 256;    // at most: more leave too few blocks at once
inline constexpr int kPlaneSpan =
    kWarps * kPlaneSteps;  // steps of a tile, and between saved states

/// x -> decay x + made.
struct Act {
  float decay = 1, made = 0;
  __device__ float operator()(float x) const { return decay * x + made; }
};
/// First `inner`, then `outer`.
__device__ inline Act after(const Act& outer, const Act& inner) {
  return {outer.decay * inner.decay, outer(inner.made)};
}

/// Where a thread stands.
struct Plane {
  const ScanCall& call;
  const int64_t blocks, block, b;
  const int warp, lane;
  const int64_t channel;
  const bool active;
  const int64_t d;
  const int32_t* const order;

  __device__ explicit Plane(const ScanCall& of)
      : call(of),
        blocks((of.channels + kWarp - 1) / kWarp),
        block(blockIdx.x % blocks),
        b(blockIdx.x / blocks),
        warp(threadIdx.x / kWarp),
        lane(threadIdx.x % kWarp),
        channel(block * kWarp + lane),
        active(channel < of.channels),
        d(active ? channel : 0),
        order(of.tokens ? of.tokens + b * of.tokens_batch : nullptr) {}

  /// The token of step lane % 8 of the warp's run in the tile at `begin`.
  __device__ int find(int begin, int end) const {
    const int position = begin + warp * kPlaneSteps + lane % kPlaneSteps;
    if (position >= end) return kNoRow;
    return order ? order[position] : position;
  }
  /// Where the sums of a row begin; a step without a row adds to the last ones, which nobody reads.
  __device__ int spot(int row) const {
    return (row < 0 ? static_cast<int>(call.plane) : row) * kWarp;
  }
  /// A barrier must follow.
  __device__ void clear(float* sums) const {
    for (int i = threadIdx.x; i < (call.plane + 1) * kWarp; i += kThreads) sums[i] = 0;
  }
};
inline size_t plane_bytes(const ScanCall& call) {
  return static_cast<size_t>(call.plane + 1) * kWarp * sizeof(float);
}

/// What step i's lane of the run holds.
template <class V>
__device__ V of_step(V held, int i) {
  return __shfl_sync(kAllLanes, held, i);
}

/// What a block knows of a sequence.
struct PlaneSequence {
  int index = 0, begin = 0, end = 0;
  int64_t k = 0;
  float A = 0, bias = 0, skip = 0;

  __device__ void enter(const ScanCall& call, int sequence, int64_t d) {
    index = sequence;
    begin = call.offsets[index];
    end = call.offsets[index + 1];
    k = call.branch[index];
    const int64_t row = k * call.channels + d;
    A = static_cast<const float*>(call.A)[row] * static_cast<float>(kLog2e);
    bias = call.delta_bias ? static_cast<const float*>(call.delta_bias)[row] : 0.f;
    skip = call.D ? static_cast<const float*>(call.D)[row] : 0.f;
  }
};

/// The tile after the next: only its positions, so that its rows can be looked up.
template <bool kBack>
struct PlaneCursor {
  static constexpr int kSpan = kPlaneSpan;

  const ScanCall& call;
  int sequence = 0, begin, end, tile;

  __device__ explicit PlaneCursor(const ScanCall& of)
      : call(of), begin(of.offsets[0]), end(of.offsets[1]), tile(first()) {}
  /// A sequence of no positions has one tile as well.
  static __device__ int last(int from, int to) { return max((to - from - 1) / kSpan, 0); }
  __device__ int first() const { return kBack ? last(begin, end) : 0; }
  __device__ int start() const { return begin + tile * kSpan; }
  __device__ void step() {
    if (kBack ? tile > 0 : tile < last(begin, end)) {
      tile += kBack ? -1 : 1;
      return;
    }
    if (sequence >= call.sequences) return;
    ++sequence;
    const bool real = sequence < call.sequences;
    begin = real ? end : 0;
    end = real ? call.offsets[sequence + 1] : 0;
    tile = first();
  }
};

/// kernel_of(T()) is the kernel for rows of T. Doubles never come here.
template <class KernelOf>
const char* launch_plane(const ScanCall& call, void* stream, const KernelOf& kernel_of) {
  for_element(call.element, [&](auto like) {
    if constexpr (sizeof(like) < 8) {
      const auto blocks = static_cast<unsigned>(call.batch * call.channel_blocks());
      const auto kernel = kernel_of(like);
      kernel<<<blocks, kThreads, plane_bytes(call), static_cast<cudaStream_t>(stream)>>>(call);
    }
  });
  return last_error();
}

}  // namespace serpentine::cuda
