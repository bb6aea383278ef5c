// One block of the backward pass of the selective scan on CUDA, for more than four states: tiles of
// 16 positions from a piece's end.
//
// A tile is worked in parts of four positions, the latest first: a part's decays and states are
// made again from the saved ones and stay in registers while the gradient of the state walks back:
//   g += C dy;  dC = h dy;  dB = g dt u;  d(dt u) = B g;  g *= exp(dt A);
//   d(dt) = u d(dt u) + A g h';  dA += dt g h'   with h' the state before the step
// dB and dC are sums over channels: each thread leaves its terms in shared memory, the block adds
// them in a fixed order and writes one partial row for its channels; no atomics.
#pragma once

#include "core/ops/scan_adjoint_memory_cuda.cuh"

namespace serpentine::cuda {

template <class T, int kEach, int kLanes>
struct Backward {
  using R = Real<T>;
  using Memory = Shared<T, kEach, kLanes>;
  using Terms = ChannelTerms<R, kEach, kLanes>;
  static constexpr int kStates = Memory::kStates, kSumSteps = Memory::kSumSteps;
  static constexpr int kOwned = Owned<kLanes>::kCount;
  static constexpr int kStateRows = Memory::kStateRows;
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

  /// The row and the element in it of a thread's i-th value of B and C.
  __device__ int state_row(int i, int buffer) const {
    const int step = (threadIdx.x + i * kThreads) / kStates % kTile;
    const bool real =
        static_cast<int>(threadIdx.x % kStates) + state_behind(i) < static_cast<int>(call.states);
    return real ? memory.rows[buffer][kRead][step] : kNoRow;
  }
  // not 0 where a row is longer than the block
  static __device__ int state_behind(int i) { return i * kThreads % kStates; }

  /// Starts the copies of a tile's rows, each thread those that it puts.
  __device__ void request(int buffer) {
    const int* const read = memory.rows[buffer][kRead];
    const int* const grads = memory.rows[buffer][kGrad];
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      const int step = Owned<kLanes>::step(i, at.state);
      copy_row(&memory.rows_ahead[3 * i][threadIdx.x], u, read[step]);
      copy_row(&memory.rows_ahead[3 * i + 1][threadIdx.x], delta, read[step]);
      copy_row(&memory.rows_ahead[3 * i + 2][threadIdx.x], dy, grads[step]);
    }
#pragma unroll
    for (int i = 0; i < kStateRows; ++i) {
      const int row = state_row(i, buffer);
      copy_row(&memory.ahead_and_sums.states[2 * i][threadIdx.x], B, row, state_behind(i));
      copy_row(&memory.ahead_and_sums.states[2 * i + 1][threadIdx.x], C, row, state_behind(i));
    }
  }

  /// What was requested, as the walks need it, `left` steps of it inside the piece; a barrier must
  /// follow.
  __device__ void put(int left, int buffer) {
    wait_for_copies();
    const int* const read = memory.rows[buffer][kRead];
    const int* const grads = memory.rows[buffer][kGrad];
#pragma unroll
    for (int i = 0; i < kStateRows; ++i) {
      const int to = threadIdx.x + i * kThreads;
      if (kTile * kStates % kThreads != 0 && to >= kTile * kStates) continue;
      const int row = sizeof(T) == 2 ? state_row(i, buffer) : 0;
      memory.B[to] =
          wide(copied(memory.ahead_and_sums.states[2 * i][threadIdx.x], B, row, state_behind(i)));
      memory.C[to] = wide(
          copied(memory.ahead_and_sums.states[2 * i + 1][threadIdx.x], C, row, state_behind(i)));
    }
    R value[kOwned], grad[kOwned];
    R dt[kOwned], slope[kOwned];
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      const int step = Owned<kLanes>::step(i, at.state);
      const Word<T>(*const ahead)[kThreads] = memory.rows_ahead + 3 * i;
      value[i] = wide(copied(ahead[0][threadIdx.x], u, read[step]));
      dt[i] = R(wide(copied(ahead[1][threadIdx.x], delta, read[step]))) + bias;
      grad[i] = wide(copied(ahead[2][threadIdx.x], dy, grads[step]));
    }
    steps_of(dt, slope, call.softplus);
    if (at.state >= Owned<kLanes>::kOwners) return;
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      const int step = Owned<kLanes>::step(i, at.state);
      const bool behind = step >= left;
      const R now = behind ? R(0) : dt[i];
      const int to = step * Memory::kElements + threadIdx.x / kLanes;
      memory.elements[to] = {now, active ? now * value[i] : R(0), active ? grad[i] : R(0),
                             behind ? R(0) : slope[i]};
      memory.inputs[step * Memory::kInputs + threadIdx.x / kLanes] = value[i];
    }
  }

  __device__ const Element4<R>& element(int step) const {
    return memory.elements[step * Memory::kElements + threadIdx.x / kLanes];
  }
  /// One step forward.
  __device__ void advance(R (&h)[kEach], int step) const {
    const R dt = element(step).dt, dtu = element(step).dtu;
    R row_b[kEach];
    load_vector(row_b, memory.B + step * kStates + first_state);
#pragma unroll
    for (int n = 0; n < kEach; ++n) h[n] = exp2_fast(dt * A[n]) * h[n] + dtu * row_b[n];
  }

  /// Walks from h over steps [kFrom, kTo).
  template <int kFrom, int kTo>
  __device__ void walk(R (&h)[kEach]) const {
#pragma unroll
    for (int step = kFrom; step < kTo; ++step) advance(h, step);
  }

  /// Walks a part forward from the state before it, then backwards, and leaves the warp's sums of
  /// dB and dC.
  template <int kIndex>
  __device__ void walk_back(const R (&before)[kEach], int buffer) {
    constexpr int kFirst = kIndex * kPart;
    R decay[kPart][kEach], h[kPart][kEach];  // h: after each step
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      const R dt = element(kFirst + i).dt, dtu = element(kFirst + i).dtu;
      R row_b[kEach];
      load_vector(row_b, memory.B + (kFirst + i) * kStates + first_state);
#pragma unroll
      for (int n = 0; n < kEach; ++n) {
        decay[i][n] = exp2_fast(dt * A[n]);
        h[i][n] = decay[i][n] * (i == 0 ? before[n] : h[i > 0 ? i - 1 : 0][n]) + dtu * row_b[n];
      }
    }
    R sums[2 * kPart];  // over states: through B of each step, then through A
    R* const to = memory.ahead_and_sums.sums[kSumSteps == kTile ? 0 : kIndex % 2][0][at.warp] +
                  Terms::first_of(at.lane) * kLanes + at.state;
#pragma unroll
    for (int i = kPart - 1; i >= 0; --i) {
      const Element4<R> now = element(kFirst + i);
      R row_b[kEach], row_c[kEach], terms[Terms::kCount], sum_b = 0, sum_a = 0;
      load_vector(row_b, memory.B + (kFirst + i) * kStates + first_state);
      load_vector(row_c, memory.C + (kFirst + i) * kStates + first_state);
#pragma unroll
      for (int n = 0; n < kEach; ++n) {
        g[n] += now.dy * row_c[n];
        terms[n] = g[n] * now.dtu;
        terms[kEach + n] = now.dy * h[i][n];
        sum_b += g[n] * row_b[n];
        g[n] *= decay[i][n];
        const R flow = g[n] * (i == 0 ? before[n] : h[i > 0 ? i - 1 : 0][n]);
        sum_a += flow * A[n];
        dA[n] += flow * now.dt;
      }
      Terms::sum_over_channels(terms, at.lane);
#pragma unroll
      for (int j = 0; j < Terms::kLeft; ++j) {
        to[(kFirst + i) % kSumSteps * (kWarps * 2 * kStates) + j * kLanes] = terms[j];
      }
      sums[i] = sum_b;
      sums[kPart + i] = sum_a;
    }
    finish<kIndex>(sums, buffer);
  }

  /// Writes du and ddelta of a part's steps and adds to the sums over time.
  template <int kIndex>
  __device__ void finish(R (&sums)[2 * kPart], int buffer) {
    sum_over_lanes<kLanes>(sums, at.state);
    if constexpr (kLanes >= 8) {
      // lane s % 8 holds value s % 8: a step's sum through B, or four lanes further through A
      const R other = __shfl_xor_sync(kAllLanes, sums[0], kPart);
      const bool upper = at.state % 8 >= kPart;
      const R through_b = upper ? other : sums[0], through_a = upper ? sums[0] : other;
      constexpr int kGroups = Owned<kLanes>::kOwners / kPart;  // of lanes that own a part's steps
      const bool mine =
          at.state < Owned<kLanes>::kOwners && at.state / kPart % kGroups == kIndex % kGroups;
      finish_step(kIndex * kPart + at.state % kPart, mine, through_b, through_a, buffer);
    } else {
#pragma unroll
      for (int q = 0; q < kPart / kLanes; ++q) {
        finish_step(kIndex * kPart + q * kLanes + at.state, true, sums[q], sums[kPart / kLanes + q],
                    buffer);
      }
    }
  }
  __device__ void finish_step(int step, bool mine, R through_b, R through_a, int buffer) {
    const Element4<R> now = element(step);
    const R value = memory.inputs[step * Memory::kInputs + threadIdx.x / kLanes];
    const R input_grad = now.dt * through_b + skip * now.dy;
    const R step_grad = (value * through_b + through_a * static_cast<R>(kLn2)) * now.slope;
    if (mine) {
      dD += now.dy * value;
      dbias += step_grad;
    }
    const bool writes = mine && active;
    store(du, writes ? memory.rows[buffer][kInput][step] : kNoRow, input_grad);
    store(ddelta, writes ? memory.rows[buffer][kStep][step] : kNoRow, step_grad);
  }

  /// Adds the warps' sums of dB and dC and writes them. `row`: the element of dB and dC where the
  /// tile's first row begins; `from`: the first of the steps.
  template <int kIndex>
  __device__ void write_sums(int64_t row, int left) {
    constexpr int kWidth = 2 * kStates, kFirst = kSumSteps == kTile ? 0 : kIndex * kPart;
    const auto& sums = memory.ahead_and_sums.sums[kSumSteps == kTile ? 0 : kIndex % 2];
#pragma unroll
    for (int round = 0; round < kSumSteps * kWidth / kThreads; ++round) {
      const int i = threadIdx.x + round * kThreads;
      const int step = i / kWidth, x = i % kWidth;
      R sum = sums[step][0][x];
#pragma unroll
      for (int w = 1; w < kWarps; ++w) sum += sums[step][w][x];
      const int term = x / kLanes, n = x % kLanes * kEach + term % kEach;
      R* const to = static_cast<R*>(term >= kEach ? call.dC : call.dB);
      const bool real = kFirst + step < left && n < static_cast<int>(call.states);
      store_if(real ? 0 : kNoRow, to + row + (kFirst + step) * static_cast<int>(call.states) + n,
               sum);
    }
  }

  /// Part by part from the end. `before`: the states before the parts.
  template <int kIndex>
  __device__ void walk_parts(const R (&before)[kParts][kEach], int64_t row, int left, int buffer) {
    walk_back<kIndex>(before[kIndex], buffer);
    if constexpr (kIndex == 0 || kSumSteps == kPart) {
      __syncthreads();
      write_sums<kIndex>(row, left);
    }
    if constexpr (kIndex > 0) walk_parts<kIndex - 1>(before, row, left, buffer);
  }

  /// The state before a tile of a chunk of several: the chunk is walked from its saved start.
  __device__ void walk_to(int64_t tile, R (&h)[kEach]) {
    for (int64_t skipped = tile / kTilesAChunk * kTilesAChunk; skipped < tile; ++skipped) {
      __syncthreads();
      find(piece.begin + skipped * kTile, 0);
      __syncthreads();
      request(0);
      put(kTile, 0);
      __syncthreads();
      walk<0, kTile>(h);
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
    // the chunk is a constant here: nothing is divided in the loop
    constexpr int64_t kChunk = int64_t{kTile} * kTilesAChunk;
    const int64_t slots = call.positions / kChunk + call.sequences;
    const int64_t chunk_stride = call.channels * kStates;
    const R* const saved = static_cast<const R*>(call.saved) +
                           ((b * slots + piece.first_chunk) * call.channels + d) * kStates +
                           first_state;
    R start[kEach] = {};
    constexpr bool kAhead = kTilesAChunk == 1;
    const int length = static_cast<int>(piece.end - piece.begin);
    const int64_t tiles = (length + kTile - 1) / kTile;
    if (kAhead && tiles > 0) {
      find(piece.begin + (tiles - 1) * kTile, (tiles - 1) & 1);
      if (tiles > 1) find(piece.begin + (tiles - 2) * kTile, tiles & 1);
      __syncthreads();
      request((tiles - 1) & 1);
      load_vector(start, saved + (tiles - 1) * chunk_stride);
    }
    int64_t row =
        ((at.block * call.batch + b) * call.positions + piece.begin + (tiles - 1) * kTile) *
        call.states;
    for (int64_t tile = tiles - 1; tile >= 0; --tile) {
      const int64_t first = piece.begin + tile * kTile;
      const int buffer = kAhead ? tile & 1 : 0;
      const int left = length - static_cast<int>(tile) * kTile;
      if (!kAhead) {
        load_vector(start, saved + tile / kTilesAChunk * chunk_stride);
        walk_to(tile, start);
        find(first, 0);
        __syncthreads();
        request(0);
      }
      put(left, buffer);
      __syncthreads();
      if (kAhead && tile > 0) request(buffer ^ 1);
      R before[kParts][kEach];
#pragma unroll
      for (int n = 0; n < kEach; ++n) before[0][n] = start[n];
      if (kAhead && tile > 0) load_vector(start, saved + (tile - 1) * chunk_stride);
#pragma unroll
      for (int part = 1; part < kParts; ++part) {
#pragma unroll
        for (int n = 0; n < kEach; ++n) before[part][n] = before[part - 1][n];
#pragma unroll
        for (int i = 0; i < kPart; ++i) advance(before[part], (part - 1) * kPart + i);
      }
      walk_parts<kParts - 1>(before, row, left, buffer);
      row -= kTile * call.states;
      // the last part's barrier came after the last use of this tile's rows
      if (kAhead && tile > 1) find(first - 2 * kTile, buffer);
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
};

}  // namespace serpentine::cuda
