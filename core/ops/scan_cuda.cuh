// What both passes of the CUDA scan share: arithmetic, rows through an order, sums over lanes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/ops/scan_cuda.h"

namespace serpentine::cuda {

/// The type in which rows of T are computed and states are held.
template <class T>
struct RealOf {
  using type = float;
};
template <>
struct RealOf<double> {
  using type = double;
};
template <class T>
using Real = typename RealOf<T>::type;

__device__ inline float wide(float x) { return x; }
__device__ inline double wide(double x) { return x; }
__device__ inline float wide(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float wide(__half x) { return __half2float(x); }

template <class T, class R>
__device__ T narrow(R x) {
  if constexpr (sizeof(T) == 2 && alignof(T) == 2) {
    return T(static_cast<float>(x));
  } else {
    return static_cast<T>(x);
  }
}

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline double exp2_fast(double x) { return exp2(x); }
__device__ inline float log2_fast(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

inline constexpr double kLog2e = 1.4426950408889634, kLn2 = 0.6931471805599453;

/// softplus, the identity above 20 as published. Below e^x = 1/16 the logarithm of 1 + e^x would
/// lose the digits of e^x, so its series is summed.
__device__ inline float softplus(float x) {
  const float e = exp2_fast(x * static_cast<float>(kLog2e));
  const float series =
      e * fmaf(-e, fmaf(-e, fmaf(-e, fmaf(-e, 0.2f, 0.25f), 1.f / 3.f), 0.5f), 1.f);
  const float direct = log2_fast(1.f + e) * static_cast<float>(kLn2);
  return x > 20.f ? x : e < 0.0625f ? series : direct;
}
__device__ inline double softplus(double x) { return x > 20. ? x : log1p(exp(x)); }

/// The derivative of softplus.
__device__ inline float softplus_slope(float x) {
  return x > 20.f ? 1.f : reciprocal(1.f + exp2_fast(-x * static_cast<float>(kLog2e)));
}
__device__ inline double softplus_slope(double x) { return x > 20. ? 1. : 1. / (1. + exp(-x)); }

/// One thread's column of one sample's rows; addresses are 64-bit from the multiplication on.
template <class T>
struct Column {
  T* base;
  int32_t stride;
  bool by_token;
  __device__ Column(const RowsView& view, int64_t b, int64_t k, int64_t column)
      : base(static_cast<T*>(view.data) + b * view.batch + k * view.branch + column),
        stride(view.row),
        by_token(view.by_token) {}
  __device__ T* at(int position, int token) const {
    const int row = by_token ? token : position;
    return row < 0 ? nullptr : base + int64_t{row} * stride;
  }
};

template <class T>
__device__ T zero() {
  return T(0.f);
}

/// Rows that are stored as T, or as its compute type when `is_wide`.
template <class T>
__device__ void store(void* base, bool is_wide, int64_t index, Real<T> value) {
  if (is_wide) {
    static_cast<Real<T>*>(base)[index] = value;
  } else {
    static_cast<T*>(base)[index] = narrow<T>(value);
  }
}

/// A run of positions [begin, end) of sequence `sequence`, in its slot.
struct Piece {
  int64_t slot, sequence, begin, end, first_chunk;
  bool first, last;  // of its sequence
  bool used;
};

__device__ inline int64_t find_sequence(const int32_t* offsets, int64_t sequences, int64_t piece,
                                        int64_t slot) {
  int64_t low = 0, high = sequences;  // the last s with offsets[s] / piece + s <= slot
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (offsets[middle] / piece + middle <= slot) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

__device__ inline Piece find_piece(const ScanCall& call, int64_t slot) {
  Piece piece;
  piece.slot = slot;
  int64_t index = 0;
  if (call.piece == 0) {
    piece.sequence = slot;
  } else {
    piece.sequence = find_sequence(call.offsets, call.sequences, call.piece, slot);
    index = slot - (call.offsets[piece.sequence] / call.piece + piece.sequence);
  }
  const int64_t start = call.offsets[piece.sequence], stop = call.offsets[piece.sequence + 1];
  piece.begin = start + index * call.piece;
  piece.end = call.piece == 0 ? stop : min(piece.begin + call.piece, stop);
  piece.first = index == 0;
  piece.used = piece.first || piece.begin < stop;
  piece.last = piece.used && piece.end == stop;
  piece.first_chunk = call.chunk == 0
                          ? 0
                          : start / call.chunk + piece.sequence + index * (call.piece / call.chunk);
  return piece;
}

/// Where a thread stands: its channel, its lane among the channel's, and the block's work.
template <int kEach, int kLanes>
struct Place {
  int64_t b, slot, block;  // sample, slot, channel block
  int64_t channel;         // may lie beyond the last: then the thread works on zeros
  int warp, lane, state;   // state lane within the channel
  __device__ explicit Place(const ScanCall& call) {
    constexpr int kChannels = kThreads / kLanes;
    const int64_t blocks = (call.channels + kChannels - 1) / kChannels, slots = call.slots();
    block = blockIdx.x % blocks;
    slot = blockIdx.x / blocks % slots;
    b = blockIdx.x / blocks / slots;
    warp = threadIdx.x / kWarp;
    lane = threadIdx.x % kWarp;
    state = lane % kLanes;
    channel = block * kChannels + threadIdx.x / kLanes;
  }
};

/// kEach neighbouring states of a dense row of `states`, zeros behind the last.
template <int kEach, class R>
__device__ void load_states(R (&value)[kEach], const R* row, int first, int64_t states) {
#pragma unroll
  for (int n = 0; n < kEach; ++n) value[n] = row && first + n < states ? row[first + n] : R(0);
}
template <int kEach, class R>
__device__ void store_states(R* row, const R (&value)[kEach], int first, int64_t states) {
#pragma unroll
  for (int n = 0; n < kEach; ++n) {
    if (first + n < states) row[first + n] = value[n];
  }
}

/// kEach values that lie aligned and whole, in shared or global memory.
template <int kEach, class R>
__device__ void load_vector(R (&value)[kEach], const R* from) {
  constexpr int kBytes = kEach * sizeof(R);
  if constexpr (kBytes % 16 == 0) {
#pragma unroll
    for (int i = 0; i < kBytes / 16; ++i) {
      reinterpret_cast<uint4*>(value)[i] = reinterpret_cast<const uint4*>(from)[i];
    }
  } else if constexpr (kBytes == 8) {
    *reinterpret_cast<uint2*>(value) = *reinterpret_cast<const uint2*>(from);
  } else {
    value[0] = from[0];
  }
}
template <int kEach, class R>
__device__ void store_vector(R* to, const R (&value)[kEach]) {
  constexpr int kBytes = kEach * sizeof(R);
  if constexpr (kBytes % 16 == 0) {
#pragma unroll
    for (int i = 0; i < kBytes / 16; ++i) {
      reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(value)[i];
    }
  } else if constexpr (kBytes == 8) {
    *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(value);
  } else {
    to[0] = value[0];
  }
}

inline constexpr unsigned kAllLanes = 0xffffffffu;
inline constexpr int kNoToken = -1;

/// Sums value[i] over the kLanes lanes of a channel, for eight steps i at once. Lane s keeps the
/// sums of steps s, s + kLanes, ... in value[0], value[1], ...: each exchange halves what is left.
template <int kLanes, class R>
__device__ void sum_over_lanes(R (&value)[8], int state) {
#pragma unroll
  for (int m = kLanes / 2; m >= 8; m /= 2) {
#pragma unroll
    for (int i = 0; i < 8; ++i) value[i] += __shfl_xor_sync(kAllLanes, value[i], m);
  }
  constexpr int kGroups = kLanes >= 8 ? 1 : 8 / kLanes;  // of the steps that share a lane
#pragma unroll
  for (int m = kLanes >= 8 ? 4 : kLanes / 2; m >= 1; m /= 2) {
    const bool upper = (state & m) != 0;
#pragma unroll
    for (int q = 0; q < kGroups; ++q) {
#pragma unroll
      for (int r = 0; r < m; ++r) {
        const R low = value[q * 2 * m + r], high = value[q * 2 * m + r + m];
        const R sent = upper ? low : high, kept = upper ? high : low;
        value[q * m + r] = kept + __shfl_xor_sync(kAllLanes, sent, m);
      }
    }
  }
}

/// Calls `run` with a value of the element's type, or with one of the layouts of ScanCall::layout.
template <class Run>
void for_element(Element element, const Run& run) {
  if (element == Element::kFloat) run(float());
  if (element == Element::kDouble) run(double());
  if (element == Element::kBFloat16) run(__nv_bfloat16());
  if (element == Element::kHalf) run(__half());
}
template <int each, int lanes>
struct FixedLayout {
  static constexpr int kEach = each, kLanes = lanes;
};
template <class Run>
void for_layout(const StateLayout& layout, const Run& run) {
  const int states = layout.padded();
  if (states == 1) run(FixedLayout<1, 1>());
  if (states == 2) run(FixedLayout<2, 1>());
  if (states == 4) run(FixedLayout<4, 1>());
  if (states == 8) run(FixedLayout<4, 2>());
  if (states == 16) run(FixedLayout<4, 4>());
  if (states == 32) run(FixedLayout<4, 8>());
  if (states == 64) run(FixedLayout<8, 8>());
  if (states == 128) run(FixedLayout<8, 16>());
  if (states == 256) run(FixedLayout<8, 32>());
}

inline const char* last_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

/// The number of blocks, or 0 when there is nothing to do.
inline int64_t block_count(const ScanCall& call) {
  return call.batch * call.slots() * call.channel_blocks();
}

}  // namespace serpentine::cuda
