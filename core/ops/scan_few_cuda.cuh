// The selective scan on CUDA for at most four states: what binds is memory, so time is spread too.
//
// A block stands for 32 neighbouring channels, one a lane; its warps take neighbouring runs of a
// tile's steps. Each warp walks its run from zero, the runs' ends are exchanged once, and each warp
// walks again from its true start: a multiply-add a step and state, no second exponential. All rows
// of a tile are requested at once, and every value is read once.
#pragma once

#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda {

/// Steps of a warp's run, as many as registers hold.
template <int N>
inline constexpr int kRun = N == 4 ? 4 : 8;
template <int N>
inline constexpr int kSpan = kWarps * kRun<N>;  // steps of a tile

/// How a run acts on the state, or on its gradient from behind: x -> decay x + made.
template <class R, int N>
struct __align__(2 * N * sizeof(R) > 16 ? 16 : 2 * N * sizeof(R)) Action {
  R decay[N], made[N];
};

template <class T, int N>
struct Few {
  using R = Real<T>;
  static constexpr int kSteps = kRun<N>;

  const ScanCall& call;
  const int64_t b, slot, block, channel;
  const int warp, lane;
  const Piece piece;
  const int64_t k, d;
  const bool active;
  R A[N], bias, skip;

  __device__ explicit Few(const ScanCall& of)
      : call(of),
        b(blockIdx.x / blocks(of) / of.slots()),
        slot(blockIdx.x / blocks(of) % of.slots()),
        block(blockIdx.x % blocks(of)),
        channel(block * kWarp + threadIdx.x % kWarp),
        warp(threadIdx.x / kWarp),
        lane(threadIdx.x % kWarp),
        piece(find_piece(of, slot)),
        k(of.branch[piece.sequence]),
        d(channel < of.channels ? channel : 0),
        active(channel < of.channels) {
    const int64_t row = k * call.channels + d;
    load_states(A, static_cast<const R*>(call.A) + row * call.states, 0, call.states);
#pragma unroll
    for (int n = 0; n < N; ++n) A[n] *= static_cast<R>(kLog2e);
    bias = call.delta_bias ? static_cast<const R*>(call.delta_bias)[row] : R(0);
    skip = call.D ? static_cast<const R*>(call.D)[row] : R(0);
  }
  static __device__ int64_t blocks(const ScanCall& call) {
    return (call.channels + kWarp - 1) / kWarp;
  }
  __device__ int64_t slot_channel() const { return (b * call.slots() + slot) * call.channels + d; }
  __device__ int64_t sequence_channel() const {
    return (b * call.sequences + piece.sequence) * call.channels + d;
  }
  __device__ void initial(R (&h)[N]) const {
    if (call.piece_state) {
      load_vector(h, static_cast<const R*>(call.piece_state) + slot_channel() * N);
    } else {
      const auto* from = static_cast<const R*>(call.initial_state);
      load_states(h, from ? from + sequence_channel() * call.states : from, 0, call.states);
    }
  }

  /// The rows that the warp's steps read or write; lane i finds step i's.
  __device__ int find(const RowFinder& row_of, int tile, bool by_token) const {
    const int position =
        static_cast<int>(piece.begin) + tile * kSpan<N> + warp * kSteps + lane % kSteps;
    return row_of(position, by_token);
  }

  /// B or C of the warp's steps: lane i holds (step i / N, state i % N).
  __device__ T request_states(const RowsView& view, int found) const {
    const int step = lane / N % kSteps, n = lane % N;
    const Column<const T> from(view, b, k, n < call.states ? n : 0);
    const int row = __shfl_sync(kAllLanes, found, step);
    return load(from, n < call.states ? row : kNoRow);
  }
  static __device__ R state_of(R held, int step, int n) {
    return __shfl_sync(kAllLanes, held, step * N + n);
  }
};

enum class FewPass { kWhole, kSummary };

inline unsigned blocks_of(const ScanCall& call) {
  return static_cast<unsigned>(call.batch * call.slots() * call.channel_blocks());
}

template <class Run>
void for_states(const ScanCall& call, const Run& run) {
  for_element(call.element, [&](auto like) {
    const int states = call.layout().padded();
    if (states == 1) run(like, FixedLayout<1, 1>());
    if (states == 2) run(like, FixedLayout<2, 1>());
    if (states == 4) run(like, FixedLayout<4, 1>());
  });
}

}  // namespace serpentine::cuda
