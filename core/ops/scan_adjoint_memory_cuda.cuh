// What a block of the backward scan on CUDA keeps in shared memory, and the sums over a warp's
// channels that come before.
#pragma once

#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda {

/// What every lane of a channel needs of an element; slope: of dt by delta, 0 behind the end.
template <class R>
struct __align__(4 * sizeof(R)) Element4 {
  R dt, dtu, dy, slope;
};

inline constexpr int kPart = 4;  // positions whose states and decays lie in registers
inline constexpr int kParts = kTile / kPart;

enum Rows { kRead, kGrad, kInput, kStep, kRowKinds };  // u, delta, B and C; dy; du; ddelta

/// B and C on their way, and the warps' sums of dB and dC. Many states leave no room for both at
/// once; then nothing is requested while sums are made.
template <class States, class Sums, bool kOneAtATime>
struct StatesAndSums {
  States states;
  Sums sums;
};
template <class States, class Sums>
struct StatesAndSums<States, Sums, true> {
  union {
    States states;
    Sums sums;
  };
};

/// The block's shared memory. What binds this pass is the bytes that it delivers: a warp adds its
/// channels' terms of dB and dC in registers first, and rows are padded so that the lanes of a
/// channel, at neighbouring steps, meet different banks.
template <class T, int kEach, int kLanes>
struct Shared {
  using R = Real<T>;
  static constexpr int kStates = kEach * kLanes, kChannels = kThreads / kLanes;
  static constexpr int kStateRows = (kTile * kStates + kThreads - 1) / kThreads;
  static constexpr int kElements = kChannels + 2, kInputs = kChannels + 8;
  static constexpr int kSumSteps = kStates <= 32 ? kTile : kPart;  // that are added up at once
  Element4<R> elements[kTile * kElements];
  R inputs[kTile * kInputs];  // u
  R B[kTile * kStates], C[kTile * kStates];
  // what the next tile reads, on its way: a thread's own words
  Word<T> rows_ahead[3 * Owned<kLanes>::kCount][kThreads];
  StatesAndSums<Word<T>[2 * kStateRows][kThreads],
                R[kTile / kSumSteps == 1 ? 1 : 2][kSumSteps][kWarps][2 * kStates], (kStates >= 32)>
      ahead_and_sums;
  int rows[2][kRowKinds][kTile];  // of this tile and the next
};

/// The terms of dB and of dC of a step: 2 kEach values of each lane, summed over the warp's
/// channels. Each exchange halves what a lane holds; it ends with kLeft sums, from first_of() on.
template <class R, int kEach, int kLanes>
struct ChannelTerms {
  static constexpr int kCount = 2 * kEach, kSides = kWarp / kLanes;
  static constexpr int kLeft = kCount > kSides ? kCount / kSides : 1;

  static __device__ void sum_over_channels(R (&value)[kCount], int lane) {
    int count = kCount;
#pragma unroll
    for (int m = kWarp / 2; m >= kLanes; m /= 2) {
      if (count == 1) {
        value[0] += __shfl_xor_sync(kAllLanes, value[0], m);
        continue;
      }
      count /= 2;
      const bool upper = (lane & m) != 0;
#pragma unroll
      for (int i = 0; i < kCount / 2; ++i) {
        if (i >= count) continue;
        const R sent = upper ? value[i] : value[i + count];
        const R kept = upper ? value[i + count] : value[i];
        value[i] = kept + __shfl_xor_sync(kAllLanes, sent, m);
      }
    }
  }
  static __device__ int first_of(int lane) {
    int first = 0, count = kCount;
#pragma unroll
    for (int m = kWarp / 2; m >= kLanes && count > 1; m /= 2) {
      count /= 2;
      if ((lane & m) != 0) first += count;
    }
    return first;
  }
};

}  // namespace serpentine::cuda
