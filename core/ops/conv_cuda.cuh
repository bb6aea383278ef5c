// What both passes of the causal convolution on CUDA share: a lane walks a few channels through a
// run of positions with the last samples in registers, so that every row is read once (and width -
// 1 more at a run's beginning).
#pragma once

#include "core/ops/conv_cuda.h"
#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda::conv {

inline constexpr int kAhead = 8;  // rows that are requested together

/// What is known of a group of rows: nothing; that it lies inside of its piece; and that position p
/// is token p besides.
enum class Rows { kAny, kInside, kInOrder };

template <class R>
__device__ R sigmoid(R x) {
  if constexpr (sizeof(R) == 8) {
    return 1. / (1. + exp(-x));
  } else {
    return reciprocal(1.f + exp2_fast(-x * static_cast<float>(kLog2e)));
  }
}

/// Warps that lie side by side over the channels, `side` channels a lane.
__host__ __device__ inline int64_t channel_blocks(const ConvCall& call, int64_t side) {
  return (call.walk.channels + kWarp * side - 1) / (kWarp * side);
}

/// Zeros for a negative row.
template <int kSide, class T>
__device__ Pack<T, kSide> load_row(const Column<const T>& column, int row) {
  using Row = Pack<T, kSide>;
  if constexpr (sizeof(Row) == 8) {
    const double word = load_if(row, reinterpret_cast<const double*>(column.at(row)));
    return reinterpret_cast<const Row&>(word);
  } else if constexpr (sizeof(Row) == 4) {
    const float word = load_if(row, reinterpret_cast<const float*>(column.at(row)));
    return reinterpret_cast<const Row&>(word);
  } else {
    const uint16_t word = load_if(row, reinterpret_cast<const uint16_t*>(column.at(row)));
    return reinterpret_cast<const Row&>(word);
  }
}
template <int kSide, class T, class R>
__device__ void store_row(const Column<T>& column, int row, const R (&value)[kSide]) {
  Pack<T, kSide> raw;
#pragma unroll
  for (int c = 0; c < kSide; ++c) raw.value[c] = narrow<T>(value[c]);
  *reinterpret_cast<Pack<T, kSide>*>(column.at(row)) = raw;
}

/// Of one lane: kSide neighbouring channels through one piece.
template <class T, int kWidth, int kSide>
struct Conv {
  using R = Real<T>;
  using Row = Pack<T, kSide>;
  static constexpr int kBefore = kWidth - 1;

  const ConvCall& call;
  const int64_t unit, blocks, slot, b, channel;
  const Piece piece;
  const int64_t k, d;
  const bool active;
  const RowFinder row_of;
  const Column<const T> x;
  R weight[kWidth][kSide], bias[kSide];

  __device__ explicit Conv(const ConvCall& of)
      : call(of),
        unit(blockIdx.x * int64_t{kWarps} + threadIdx.x / kWarp),
        blocks(channel_blocks(of, kSide)),
        slot(unit / blocks % of.walk.slots()),
        b(unit / blocks / of.walk.slots()),
        channel((unit % blocks * kWarp + threadIdx.x % kWarp) * kSide),
        piece(b < of.walk.batch ? find_piece(of.walk, slot) : Piece{}),
        k(b < of.walk.batch ? of.walk.branch[piece.sequence] : 0),
        d(channel < of.walk.channels ? channel : 0),
        active(b < of.walk.batch && channel < of.walk.channels),
        row_of(of.walk, piece, b < of.walk.batch ? b : 0),
        x(of.x, b < of.walk.batch ? b : 0, 0, d) {
#pragma unroll
    for (int c = 0; c < kSide; ++c) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        weight[j][c] =
            static_cast<const R*>(of.weight)[(k * kWidth + j) * of.walk.channels + d + c];
      }
      bias[c] = of.bias ? static_cast<const R*>(of.bias)[k * of.walk.channels + d + c] : R(0);
    }
  }

  __device__ int64_t sequence_begin() const { return call.walk.offsets[piece.sequence]; }
  __device__ int64_t sequence_end() const { return call.walk.offsets[piece.sequence + 1]; }
  /// Sample j of the W - 1 before a sequence, or of its last ones, in a [B, S, W - 1, D] array.
  __device__ int64_t beside(int64_t j) const {
    return ((b * call.walk.sequences + piece.sequence) * kBefore + j) * call.walk.channels + d;
  }
  /// The row of x at a position of this sequence, -1 for a pad.
  __device__ int row(int64_t position) const {
    return row_of.order ? row_of.order[position] : static_cast<int>(position);
  }
  /// kCount neighbouring positions from `first`, each in front of `stop` or none: their samples.
  template <int kCount>
  __device__ void load_tokens(Row (&raw)[kCount], int first, int stop) const {
    int from[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) from[i] = first + i < stop ? first + i : kNoRow;
    if (row_of.order) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) from[i] = from[i] < 0 ? kNoRow : row_of.order[from[i]];
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) raw[i] = load_row<kSide>(x, from[i]);
  }
  /// The samples at a position, which may lie up to W - 1 before the sequence.
  __device__ void sample(int64_t position, R (&value)[kSide]) const {
    const int64_t begin = sequence_begin();
    const auto* before = static_cast<const R*>(call.before);
    const Row raw = load_row<kSide>(x, position >= begin ? row(position) : kNoRow);
#pragma unroll
    for (int c = 0; c < kSide; ++c) {
      value[c] = wide(raw.value[c]);
      if (position < begin && before) value[c] = before[beside(position - begin + kBefore) + c];
    }
  }
  __device__ void start(R (&window)[kWidth][kSide]) const {
#pragma unroll
    for (int c = 0; c < kSide; ++c) window[0][c] = 0;
#pragma unroll
    for (int j = 1; j < kWidth; ++j) sample(piece.begin - kWidth + j, window[j]);
  }
  /// window: the last W samples, the newest at W - 1.
  __device__ R inner(const R (&window)[kWidth][kSide], int c) const {
    R sum = bias[c];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sum += weight[j][c] * window[j][c];
    return sum;
  }
};

template <int kWidth, int kSide, class R>
__device__ void push(R (&window)[kWidth][kSide], const R (&value)[kSide]) {
#pragma unroll
  for (int c = 0; c < kSide; ++c) {
#pragma unroll
    for (int j = 0; j + 1 < kWidth; ++j) window[j][c] = window[j + 1][c];
    window[kWidth - 1][c] = value[c];
  }
}

template <int kSide, class T, class R>
__device__ void widen(R (&value)[kSide], const Pack<T, kSide>& raw) {
#pragma unroll
  for (int c = 0; c < kSide; ++c) value[c] = wide(raw.value[c]);
}

}  // namespace serpentine::cuda::conv
