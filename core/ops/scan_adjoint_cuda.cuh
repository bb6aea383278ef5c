// One block of the backward pass of the selective scan on CUDA, for more than four states: tiles of
// 16 positions from a piece's end.
//
// A tile is worked in two halves, the later one first: its states are made again from the saved
// ones and stay in registers while the gradient of the state walks back over them:
//   g += C dy;  dC = h dy;  dB = g dt u;  d(dt u) = B g;  g *= exp(dt A);
//   d(dt) = u d(dt u) + A g h';  dA += dt g h'   with h' the state before the step
// dB and dC are sums over channels: each thread leaves its terms in shared memory, the block adds
// them in a fixed order and writes one partial row for its channels; no atomics.
#pragma once

#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda {

/// What every lane of a channel needs of an element; slope: of dt by delta, 0 behind the end.
template <class R>
struct __align__(4 * sizeof(R)) Element4 {
  R dt, dtu, dy, slope;
};

inline constexpr int kHalf = 8;
static_assert(kTile == 2 * kHalf);

enum Rows { kRead, kGrad, kInput, kStep, kRowKinds };  // u, delta, B and C; dy; du; ddelta

/// The block's shared memory. Vectors of kEach states are padded by four every step, so that
/// threads that add up different steps meet different banks.
template <class R, int kEach, int kLanes>
struct Shared {
  static constexpr int kStates = kEach * kLanes, kChannels = kThreads / kLanes;
  static constexpr int kStride = (kThreads + 4) * kEach;
  R terms[2][kHalf * kStride];  // of dB and dC
  Element4<R> elements[kTile * kChannels];
  R inputs[kTile * kChannels];  // u
  R B[kTile * kStates], C[kTile * kStates];
  int rows[2][kRowKinds][kTile];  // of this tile and the next
};

template <class T, int kEach, int kLanes>
struct Backward {
  using R = Real<T>;
  using Memory = Shared<R, kEach, kLanes>;
  static constexpr int kStates = Memory::kStates, kStride = Memory::kStride;
  static constexpr int kOwned = Owned<kLanes>::kCount;
  static constexpr int kStateRows = (kTile * kStates + kThreads - 1) / kThreads;
  static constexpr int kTilesAChunk = kStates < 32 ? 1 : kStates / 16;

  const ScanCall& call;
  Memory& memory;
  const Place<kEach, kLanes> at;
  const Piece piece;
  const int64_t b, k, d;
  const bool active;
  const int first_state;
  R A[kEach], g[kEach], dA[kEach];
  R bias, skip, dD = 0, dbias = 0;
  T raw_u[kOwned], raw_delta[kOwned], raw_dy[kOwned];  // of the next tile
  T raw_b[kStateRows], raw_c[kStateRows];
  const Column<const T> u, delta, dy, B, C;
  const Column<T> du, ddelta;

  __device__ Backward(const ScanCall& of, Memory& shared)
      : call(of),
        memory(shared),
        at(of),
        piece(find_piece(of, at.slot)),
        b(at.b),
        k(of.branch[piece.sequence]),
        d(at.channel < of.channels ? at.channel : 0),
        active(at.channel < of.channels),
        first_state(at.state * kEach),
        u(of.u, b, k, d),
        delta(of.delta, b, k, d),
        dy(of.dy, b, k, d),
        B(of.B, b, k, threadIdx.x % kStates),
        C(of.C, b, k, threadIdx.x % kStates),
        du(of.du, b, k, d),
        ddelta(of.ddelta, b, k, d) {
    const int64_t channel = k * call.channels + d;
    load_states(A, static_cast<const R*>(call.A) + channel * call.states, first_state, call.states);
#pragma unroll
    for (int n = 0; n < kEach; ++n) {
      A[n] *= static_cast<R>(kLog2e);
      g[n] = dA[n] = 0;
    }
    bias = call.delta_bias ? static_cast<const R*>(call.delta_bias)[channel] : R(0);
    skip = call.D ? static_cast<const R*>(call.D)[channel] : R(0);
  }

  __device__ int64_t slot_channel() const {
    return (b * call.slots() + at.slot) * call.channels + d;
  }
  __device__ int64_t sequence_channel() const {
    return (b * call.sequences + piece.sequence) * call.channels + d;
  }

  /// The rows of the tile at `first`, one a thread; a barrier must follow before they are used.
  __device__ void find(int64_t first, int buffer) {
    if (threadIdx.x >= kRowKinds * kTile) return;
    const int kind = threadIdx.x / kTile, step = threadIdx.x % kTile;
    const bool by_token = kind == kRead    ? call.u.by_token
                          : kind == kGrad  ? call.dy.by_token
                          : kind == kInput ? call.du.by_token
                                           : call.ddelta.by_token;
    memory.rows[buffer][kind][step] =
        RowFinder(call, piece, b)(static_cast<int>(first) + step, by_token);
  }

  __device__ void request(int buffer) {
    const int* const read = memory.rows[buffer][kRead];
    const int* const grads = memory.rows[buffer][kGrad];
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      const int step = Owned<kLanes>::step(i, at.state);
      raw_u[i] = load(u, read[step]);
      raw_delta[i] = load(delta, read[step]);
      raw_dy[i] = load(dy, grads[step]);
    }
    const int states = static_cast<int>(call.states);
#pragma unroll
    for (int i = 0; i < kStateRows; ++i) {
      const int step = (threadIdx.x + i * kThreads) / kStates % kTile;
      const int behind = i * kThreads % kStates;  // not 0 where a row is longer than the block
      const int row =
          static_cast<int>(threadIdx.x % kStates) + behind < states ? read[step] : kNoRow;
      raw_b[i] = load(B, row, behind);
      raw_c[i] = load(C, row, behind);
    }
  }

  /// What was requested, into registers and shared memory; a barrier must follow.
  __device__ void put(int buffer) {
    const int* const read = memory.rows[buffer][kRead];
#pragma unroll
    for (int i = 0; i < kStateRows; ++i) {
      const int to = threadIdx.x + i * kThreads;
      if (kTile * kStates % kThreads != 0 && to >= kTile * kStates) continue;
      memory.B[to] = wide(raw_b[i]);
      memory.C[to] = wide(raw_c[i]);
    }
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      const int step = Owned<kLanes>::step(i, at.state);
      if (at.state >= Owned<kLanes>::kOwners) continue;
      const R x = wide(raw_delta[i]) + bias, value = wide(raw_u[i]);
      const bool behind = read[step] == kBehind;
      const R slope = call.softplus ? softplus_slope(x) : R(1);
      const R dt = behind ? R(0) : call.softplus ? softplus(x) : x;
      const int to = step * Memory::kChannels + threadIdx.x / kLanes;
      memory.elements[to] = {dt, active ? dt * value : R(0), active ? R(wide(raw_dy[i])) : R(0),
                             behind ? R(0) : slope};
      memory.inputs[to] = value;
    }
  }

  __device__ const Element4<R>& element(int step) const {
    return memory.elements[step * Memory::kChannels + threadIdx.x / kLanes];
  }
  __device__ R* own(R* vectors, int step) const {
    return vectors + step * kStride + threadIdx.x * kEach;
  }

  /// One step forward.
  __device__ void advance(R (&h)[kEach], int step) const {
    const R dt = element(step).dt, dtu = element(step).dtu;
    R row_b[kEach];
    load_vector(row_b, memory.B + step * kStates + first_state);
#pragma unroll
    for (int n = 0; n < kEach; ++n) h[n] = exp2_fast(dt * A[n]) * h[n] + dtu * row_b[n];
  }

  /// Walks from h over `kSteps` steps.
  template <int kSteps>
  __device__ void walk(R (&h)[kEach]) const {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) advance(h, step);
  }

  /// Walks half a tile forward from the state before it, then backwards.
  template <int kFirst>
  __device__ void walk_back(const R (&before)[kEach], int buffer) {
    R h[kHalf][kEach];  // after each step
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
#pragma unroll
      for (int n = 0; n < kEach; ++n) h[i][n] = i == 0 ? before[n] : h[i > 0 ? i - 1 : 0][n];
      advance(h[i], kFirst + i);
    }
    if (kFirst == 0) __syncthreads();  // the terms of the other half have been summed
    R through_b[kHalf], through_a[kHalf];
#pragma unroll
    for (int i = kHalf - 1; i >= 0; --i) {
      const int step = kFirst + i;
      const Element4<R> now = element(step);
      R row_b[kEach], row_c[kEach], term_b[kEach], term_c[kEach];
      load_vector(row_b, memory.B + step * kStates + first_state);
      load_vector(row_c, memory.C + step * kStates + first_state);
      R sum_b = 0, sum_a = 0;
#pragma unroll
      for (int n = 0; n < kEach; ++n) {
        g[n] += now.dy * row_c[n];
        term_c[n] = now.dy * h[i][n];
        term_b[n] = g[n] * now.dtu;
        sum_b += g[n] * row_b[n];
        g[n] *= exp2_fast(now.dt * A[n]);
        const R flow = g[n] * (i == 0 ? before[n] : h[i > 0 ? i - 1 : 0][n]);
        sum_a += flow * A[n];
        dA[n] += flow * now.dt;
      }
      store_vector(own(memory.terms[0], i), term_b);
      store_vector(own(memory.terms[1], i), term_c);
      through_b[i] = sum_b;
      through_a[i] = sum_a;
    }
    sum_over_lanes<kLanes>(through_b, at.state);
    sum_over_lanes<kLanes>(through_a, at.state);
    finish(kFirst, buffer, through_b, through_a);
  }

  /// Gradients of u and delta of the elements of eight steps, from the sums over states. The sums
  /// of step half + q * owners8 + s lie in lane s of the first eight.
  __device__ void finish(int half, int buffer, const R (&through_b)[8], const R (&through_a)[8]) {
    constexpr int kSummed = kLanes < 8 ? kLanes : 8;
#pragma unroll
    for (int q = 0; q < 8 / kSummed; ++q) {
      const int step = half + q * kSummed + at.state % kSummed;
      // with 16 or more lanes a channel, lane s owns step s and the sums lie in lane s % 8
      const int i = kLanes >= kTile ? 0 : half / kSummed + q;
      const bool mine =
          active && at.state < Owned<kLanes>::kOwners && Owned<kLanes>::step(i, at.state) == step;
      if (!mine) continue;
      const Element4<R> now = element(step);
      const R value = memory.inputs[step * Memory::kChannels + threadIdx.x / kLanes];
      const R input_grad = now.dt * through_b[q] + skip * now.dy;
      const R step_grad = (value * through_b[q] + through_a[q] * static_cast<R>(kLn2)) * now.slope;
      dD += now.dy * value;
      dbias += step_grad;
      store(du, memory.rows[buffer][kInput][step], input_grad);
      store(ddelta, memory.rows[buffer][kStep][step], step_grad);
    }
  }

  /// Adds half a tile's terms of dB and dC over the block's channels and writes them.
  __device__ void sum_terms(int64_t first) {
    const int64_t count = piece.end - first;
    constexpr int kGroups = 2 * kHalf * kLanes;  // (dB or dC, step, state lane)
    constexpr int kParts = kGroups >= kThreads ? 1 : kThreads / kGroups;
    constexpr int kMembers = kThreads / kLanes / kParts;
    for (int i = threadIdx.x; i < kGroups * kParts; i += kThreads) {
      const int part = i % kParts, lane = i / kParts % kLanes, step = i / kParts / kLanes % kHalf;
      const bool of_c = i / kParts / kLanes / kHalf != 0;
      const R* from = memory.terms[of_c ? 1 : 0] + step * kStride;
      R sum[kEach] = {};
#pragma unroll 8
      for (int j = 0; j < kMembers; ++j) {
        R term[kEach];
        load_vector(term, from + ((j * kParts + part) * kLanes + lane) * kEach);
#pragma unroll
        for (int n = 0; n < kEach; ++n) sum[n] += term[n];
      }
#pragma unroll
      for (int m = 1; m < kParts; m *= 2) {
#pragma unroll
        for (int n = 0; n < kEach; ++n) sum[n] += __shfl_xor_sync(kAllLanes, sum[n], m);
      }
      if (part != 0 || step >= count) continue;
      R* to = static_cast<R*>(of_c ? call.dC : call.dB) +
              ((at.block * call.batch + b) * call.positions + first + step) * call.states;
      store_states(to, sum, lane * kEach, call.states);
    }
  }

  __device__ const R* saved(int64_t chunk) const {
    return static_cast<const R*>(call.saved) +
           ((b * call.saved_slots() + piece.first_chunk + chunk) * call.channels + d) * kStates +
           first_state;
  }

  /// The state before a tile of a chunk of several: the chunk is walked from its saved start.
  __device__ void walk_to(int64_t tile, R (&h)[kEach]) {
    for (int64_t skipped = tile / kTilesAChunk * kTilesAChunk; skipped < tile; ++skipped) {
      __syncthreads();
      find(piece.begin + skipped * kTile, 0);
      __syncthreads();
      request(0);
      put(0);
      __syncthreads();
      walk<kTile>(h);
    }
    __syncthreads();
  }

  /// Tile by tile from the end; the next tile's rows are requested while this one is walked.
  __device__ void run() {
    if (call.piece_grad) {
      load_vector(g,
                  static_cast<const R*>(call.piece_grad) + slot_channel() * kStates + first_state);
    } else {
      const auto* from = static_cast<const R*>(call.dfinal);
      load_states(g, from ? from + sequence_channel() * call.states : from, first_state,
                  call.states);
    }
    constexpr bool kAhead = kTilesAChunk == 1;
    const int64_t tiles = (piece.end - piece.begin + kTile - 1) / kTile;
    if (kAhead && tiles > 0) {
      find(piece.begin + (tiles - 1) * kTile, (tiles - 1) & 1);
      if (tiles > 1) find(piece.begin + (tiles - 2) * kTile, tiles & 1);
      __syncthreads();
      request((tiles - 1) & 1);
    }
    for (int64_t tile = tiles - 1; tile >= 0; --tile) {
      const int64_t first = piece.begin + tile * kTile;
      const int buffer = kAhead ? tile & 1 : 0;
      R h[kEach], before[kEach];
      load_vector(h, saved(tile / kTilesAChunk));
      if (!kAhead) {
        walk_to(tile, h);
        find(first, 0);
        __syncthreads();
        request(0);
      }
      put(buffer);
      __syncthreads();
      if (kAhead && tile > 0) request(buffer ^ 1);
#pragma unroll
      for (int n = 0; n < kEach; ++n) before[n] = h[n];
      walk<kHalf>(h);
      walk_back<kHalf>(h, buffer);
      __syncthreads();
      sum_terms(first + kHalf);
      walk_back<0>(before, buffer);
      __syncthreads();
      if (kAhead && tile > 1) find(first - 2 * kTile, buffer);
      sum_terms(first);
    }
    finish_piece();
  }

  __device__ void finish_piece() {
#pragma unroll
    for (int m = 1; m < kLanes; m *= 2) {
      dD += __shfl_xor_sync(kAllLanes, dD, m);
      dbias += __shfl_xor_sync(kAllLanes, dbias, m);
    }
    if (!active) return;
    store_vector(static_cast<R*>(call.dA) + slot_channel() * kStates + first_state, dA);
    if (at.state == 0) {
      if (call.dD) static_cast<R*>(call.dD)[slot_channel()] = dD;
      if (call.dbias) static_cast<R*>(call.dbias)[slot_channel()] = dbias;
    }
    if (call.dinitial && piece.first) {
      store_states(static_cast<R*>(call.dinitial) + sequence_channel() * call.states, g,
                   first_state, call.states);
    }
  }

  /// A slot without a piece adds nothing to the sums.
  __device__ void clear() {
    if (!active) return;
    const R none[kEach] = {};
    store_vector(static_cast<R*>(call.dA) + slot_channel() * kStates + first_state, none);
    if (at.state != 0) return;
    if (call.dD) static_cast<R*>(call.dD)[slot_channel()] = 0;
    if (call.dbias) static_cast<R*>(call.dbias)[slot_channel()] = 0;
  }

  /// The gradient of the state before the piece, made from none behind it: g alone.
  __device__ void summarize() {
    for (int64_t tile = (piece.end - piece.begin + kTile - 1) / kTile - 1; tile >= 0; --tile) {
      __syncthreads();
      find(piece.begin + tile * kTile, 0);
      __syncthreads();
      request(0);
      put(0);
      __syncthreads();
#pragma unroll
      for (int step = kTile - 1; step >= 0; --step) {
        const Element4<R> now = element(step);
        R row_c[kEach];
        load_vector(row_c, memory.C + step * kStates + first_state);
#pragma unroll
        for (int n = 0; n < kEach; ++n) {
          g[n] = (g[n] + now.dy * row_c[n]) * exp2_fast(now.dt * A[n]);
        }
      }
    }
    if (active) {
      store_vector(static_cast<R*>(call.piece_grad) + slot_channel() * kStates + first_state, g);
    }
  }
};

}  // namespace serpentine::cuda
