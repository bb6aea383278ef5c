// What a block of the backward scan on CUDA with two channels a lane keeps in shared memory.
#pragma once

#include "core/ops/scan_adjoint_memory_cuda.cuh"
#include "core/ops/scan_pair_cuda.cuh"

namespace serpentine::cuda {

/// cp.async of a pair; zeros for a negative row.
template <class T>
__device__ void copy_two(Two<T>* to, const Column<const T>& column, int row) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
               :
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))),
                 "l"(column.at(row < 0 ? 0 : row)), "n"(sizeof(Two<T>)),
                 "r"(row < 0 ? 0 : static_cast<int>(sizeof(Two<T>))));
}

template <class T>
struct PairShared {
  using Layout = PairLayout<4>;
  static constexpr int kStates = Layout::kStates, kOrders = Layout::kEach;
  // between steps: neighbouring ones meet different banks
  static constexpr int kGradStride = Layout::kPairs + 4, kRowStride = kOrders * kStates + kStates;
  StepPair elements[kWarps][kTile * Layout::kStride];
  float4 own[Layout::kOwned][kThreads];  // u and slopes of the elements that a thread finishes
  float2 dy[kWarps][kTile * kGradStride];
  float B[kTile * kRowStride], C[kTile * kRowStride];  // [step][order][state]
  Two<T> ahead[3 * Layout::kOwned][kThreads];          // u, delta, dy of the next tile
  float sums[kTile][kWarps][2 * kStates];              // of dB, dC
  float4 starts[kParts][kPair][kThreads];  // the states before the parts: a thread's own
  int rows[2][kRowKinds][kTile];
};

/// Four states as they lie in memory, in the order of a lane: slot j becomes state j ^ order.
__device__ inline void reorder(float (&value)[4], int order) {
  const bool odd = (order & 1) != 0, high = (order & 2) != 0;
  const float a = odd ? value[1] : value[0], b = odd ? value[0] : value[1];
  const float c = odd ? value[3] : value[2], d = odd ? value[2] : value[3];
  value[0] = high ? c : a;
  value[1] = high ? d : b;
  value[2] = high ? a : c;
  value[3] = high ? b : d;
}

}  // namespace serpentine::cuda
