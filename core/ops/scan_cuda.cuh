// What both passes of the CUDA scan share: arithmetic, rows through an order, sums over lanes.
#pragma once

#include "core/ops/scan_rows_cuda.cuh"

namespace serpentine::cuda {

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

/// softplus and its derivative e^x / (1 + e^x) from one exponential.
__device__ inline float softplus(float x, float& slope) {
  const float e = exp2_fast(x * static_cast<float>(kLog2e));
  const float series =
      e * fmaf(-e, fmaf(-e, fmaf(-e, fmaf(-e, 0.2f, 0.25f), 1.f / 3.f), 0.5f), 1.f);
  const float direct = log2_fast(1.f + e) * static_cast<float>(kLn2);
  slope = x > 20.f ? 1.f : e * reciprocal(1.f + e);
  return x > 20.f ? x : e < 0.0625f ? series : direct;
}
__device__ inline double softplus(double x, double& slope) {
  slope = x > 20. ? 1. : 1. / (1. + exp(-x));
  return softplus(x);
}

/// dt of some elements. One branch for all of them: their special functions overlap.
template <int kCount, class R>
__device__ void steps_of(R (&x)[kCount], bool is_softplus) {
  if (!is_softplus) return;
#pragma unroll
  for (int i = 0; i < kCount; ++i) x[i] = softplus(x[i]);
}
/// The same, with the derivatives of dt by x.
template <int kCount, class R>
__device__ void steps_of(R (&x)[kCount], R (&slope)[kCount], bool is_softplus) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) slope[i] = 1;
  if (!is_softplus) return;
#pragma unroll
  for (int i = 0; i < kCount; ++i) x[i] = softplus(x[i], slope[i]);
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
  const int64_t chunk = call.chunk();
  piece.first_chunk = start / chunk + piece.sequence + index * (call.piece / chunk);
  return piece;
}

/// Where position `position` of a piece reads its rows and writes them: by token or by position.
struct RowFinder {
  const int32_t* order;  // null: position p is token p
  int end;
  __device__ RowFinder(const ScanCall& call, const Piece& piece, int64_t b)
      : order(call.tokens ? call.tokens + b * call.tokens_batch : nullptr),
        end(static_cast<int>(piece.end)) {}
  __device__ int operator()(int position, bool by_token) const {
    if (position >= end) return kNoRow;
    return by_token && order ? order[position] : position;
  }
};

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

/// As many values as one load or store moves.
template <class R, int kCount>
struct __align__(kCount * sizeof(R)) Pack {
  R value[kCount];
};
template <class R, int kEach>
using Vector = Pack<R, (kEach * sizeof(R) > 16 ? 16 / int{sizeof(R)} : kEach)>;

/// kEach values that lie aligned and whole, in shared or global memory.
template <int kEach, class R>
__device__ void load_vector(R (&value)[kEach], const R* from) {
  using V = Vector<R, kEach>;
  constexpr int kCount = sizeof(V) / sizeof(R);
#pragma unroll
  for (int i = 0; i < kEach / kCount; ++i) {
    const V pack = reinterpret_cast<const V*>(from)[i];
#pragma unroll
    for (int n = 0; n < kCount; ++n) value[i * kCount + n] = pack.value[n];
  }
}
template <int kEach, class R>
__device__ void store_vector(R* to, const R (&value)[kEach]) {
  using V = Vector<R, kEach>;
  constexpr int kCount = sizeof(V) / sizeof(R);
#pragma unroll
  for (int i = 0; i < kEach / kCount; ++i) {
    V pack;
#pragma unroll
    for (int n = 0; n < kCount; ++n) pack.value[n] = value[i * kCount + n];
    reinterpret_cast<V*>(to)[i] = pack;
  }
}

inline constexpr unsigned kAllLanes = 0xffffffffu;

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

/// Calls `run` with a value of the element's type, or with one of the layouts of ScanCall::layout
/// that spread states over lanes.
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

/// Between the passes over pieces (scan_chain_cuda.cu): piece_state becomes the states before the
/// pieces, piece_grad the gradients behind them.
void chain_states(const ScanCall& call, cudaStream_t stream);
void chain_gradients(const ScanCall& call, cudaStream_t stream);

/// The scan of at most four states; summary: only what chains pieces (scan_few_*_cuda.cu).
void few_forward(const ScanCall& call, bool summary, cudaStream_t stream);
void few_backward(const ScanCall& call, bool summary, cudaStream_t stream);

/// The number of blocks, or 0 when there is nothing to do.
inline int64_t block_count(const ScanCall& call) {
  return call.batch * call.slots() * call.channel_blocks();
}

/// One call of a scan. Where sequences are cut into pieces, run(call, summary = true, stream) walks
/// each piece for what it does to a state, and `chain` joins them; then run(call, false, stream).
template <class Run, class Chain>
const char* walk_pieces(const ScanCall& call, void* stream, const Run& run, const Chain& chain) {
  if (block_count(call) == 0) return nullptr;
  const auto queue = static_cast<cudaStream_t>(stream);
  if (call.piece != 0 && !call.joined) {
    run(call, /*summary=*/true, queue);
    chain(call, queue);
  }
  run(call, /*summary=*/false, queue);
  return last_error();
}

/// Rounds in which the device works `blocks` off, `each` of a multiprocessor at once.
inline int64_t waves(int64_t blocks, int each) {
  int device = 0, processors = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  return (blocks + int64_t{processors} * each - 1) / (int64_t{processors} * each);
}
/// Whether `more` blocks of a multiprocessor at once need fewer rounds than `fewer` of them, which
/// have more registers each and are faster where the number of rounds is the same.
inline bool fewer_waves(int64_t blocks, int more, int fewer) {
  return waves(blocks, more) < waves(blocks, fewer);
}

/// How the steps of a tile are shared out over the lanes of a channel.
template <int kLanes>
struct Owned {
  static constexpr int kOwners = kLanes < kTile ? kLanes : kTile;  // lanes that own elements
  static constexpr int kCount = kTile / kOwners;
  static __device__ int step(int i, int state) { return i * kOwners + state % kOwners; }
};

}  // namespace serpentine::cuda
