// One block of the backward pass of the selective scan on CUDA with two channels a lane, for nine
// to 16 states: scan_adjoint_cuda.cuh's walk, where each row of B and C is read once for both and
// their terms of dB and dC are added before any exchange.
//
// The lanes of neighbouring pairs hold their four states in different orders: slot j of a lane
// whose pair is x modulo 4 is state j ^ x. What a lane sends to its neighbour in the sums over
// channels is then the same slot in every lane, and nothing has to be selected. Shared memory
// holds B and C once in each of the four orders.
#pragma once

#include "core/ops/scan_pair_memory_cuda.cuh"

namespace serpentine::cuda {

template <class T>
struct PairBackward {
  using Layout = PairLayout<4>;
  using Memory = PairShared<T>;
  static constexpr int kLanes = 4, kEach = Layout::kEach, kStates = Layout::kStates;
  static constexpr int kOwned = Layout::kOwned, kStateRows = kTile * kStates / kThreads;
  using States = float[kPair][kEach];  // of a lane's channels, in its own order

  const ScanCall& call;
  Memory& memory;
  const int64_t blocks, block, slot, b;
  const int warp, lane, state, pair, order;
  const Piece piece;
  const int64_t k, channel;
  const bool active;
  const int64_t d;
  const Column<const T> u, delta, dy, B, C;
  const Column<T> du, ddelta;
  float A[kPair][kEach], g[kPair][kEach], dA[kPair][kEach];
  float bias[kPair], skip[kPair], dD[kPair] = {}, dbias[kPair] = {};
  T raw_b[kStateRows], raw_c[kStateRows];

  __device__ PairBackward(const ScanCall& of, Memory& shared)
      : call(of),
        memory(shared),
        blocks(of.channel_blocks()),
        block(blockIdx.x % blocks),
        slot(blockIdx.x / blocks % of.slots()),
        b(blockIdx.x / blocks / of.slots()),
        warp(threadIdx.x / kWarp),
        lane(threadIdx.x % kWarp),
        state(lane % kLanes),
        pair(lane / kLanes),
        order(pair % kEach),
        piece(find_piece(of, slot)),
        k(of.branch[piece.sequence]),
        channel(block * Layout::kChannels + threadIdx.x / kLanes * kPair),
        active(channel < of.channels),
        d(active ? channel : 0),
        u(of.u, b, k, d),
        delta(of.delta, b, k, d),
        dy(of.dy, b, k, d),
        B(of.B, b, k, threadIdx.x % kStates),
        C(of.C, b, k, threadIdx.x % kStates),
        du(of.du, b, k, d),
        ddelta(of.ddelta, b, k, d) {
#pragma unroll
    for (int c = 0; c < kPair; ++c) {
      const int64_t row = k * call.channels + d + c;
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        const bool real = state_of(j) < static_cast<int>(call.states);
        A[c][j] = real ? static_cast<const float*>(call.A)[row * call.states + state_of(j)] *
                             static_cast<float>(kLog2e)
                       : 0.f;
        g[c][j] = dA[c][j] = 0;
      }
      bias[c] = call.delta_bias ? static_cast<const float*>(call.delta_bias)[row] : 0.f;
      skip[c] = call.D ? static_cast<const float*>(call.D)[row] : 0.f;
    }
  }
  __device__ int state_of(int slot_of_lane) const { return state * kEach + (slot_of_lane ^ order); }
  __device__ int64_t slot_channel() const { return (b * call.slots() + slot) * call.channels + d; }
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
  /// Starts the copies of a tile's rows. A thread without a channel reads zeros.
  __device__ void request(int buffer) {
    const int* const read = memory.rows[buffer][kRead];
    const int* const grads = memory.rows[buffer][kGrad];
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      const int step = Layout::step(i, state);
      copy_two(&memory.ahead[3 * i][threadIdx.x], u, active ? read[step] : kNoRow);
      copy_two(&memory.ahead[3 * i + 1][threadIdx.x], delta, active ? read[step] : kNoRow);
      copy_two(&memory.ahead[3 * i + 2][threadIdx.x], dy, active ? grads[step] : kNoRow);
    }
    const bool real = static_cast<int>(threadIdx.x % kStates) < static_cast<int>(call.states);
#pragma unroll
    for (int i = 0; i < kStateRows; ++i) {
      const int row = real ? read[(threadIdx.x + i * kThreads) / kStates] : kNoRow;
      raw_b[i] = load(B, row);
      raw_c[i] = load(C, row);
    }
  }
  /// What was requested, as the walks need it, `left` steps of it inside the piece; a barrier must
  /// follow.
  __device__ void put(int left) {
#pragma unroll
    for (int i = 0; i < kStateRows; ++i) {
      const int step = (threadIdx.x + i * kThreads) / kStates, n = threadIdx.x % kStates;
      const float value_b = wide(raw_b[i]), value_c = wide(raw_c[i]);
#pragma unroll
      for (int x = 0; x < Memory::kOrders; ++x) {
        const int to = step * Memory::kRowStride + x * kStates + (n ^ x);
        memory.B[to] = value_b;
        memory.C[to] = value_c;
      }
    }
    wait_for_copies();
    float dt[kOwned * kPair], slope[kOwned * kPair];
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      const Two<T> raw = memory.ahead[3 * i + 1][threadIdx.x];
      dt[i * kPair] = wide(raw.value[0]) + bias[0];
      dt[i * kPair + 1] = wide(raw.value[1]) + bias[1];
    }
    steps_of(dt, slope, call.softplus);
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      const int step = Layout::step(i, state);
      const bool behind = step >= left;  // there the state stays
      const Two<T> raw_u = memory.ahead[3 * i][threadIdx.x];
      const Two<T> raw_dy = memory.ahead[3 * i + 2][threadIdx.x];
      const float dt0 = behind ? 0.f : dt[i * kPair], dt1 = behind ? 0.f : dt[i * kPair + 1];
      const float u0 = wide(raw_u.value[0]), u1 = wide(raw_u.value[1]);
      memory.elements[warp][step * Layout::kStride + pair] = {dt0, dt0 * u0, dt1, dt1 * u1};
      memory.dy[warp][step * Memory::kGradStride + pair] = {wide(raw_dy.value[0]),
                                                            wide(raw_dy.value[1])};
      memory.own[i][threadIdx.x] = {u0, u1, behind ? 0.f : slope[i * kPair],
                                    behind ? 0.f : slope[i * kPair + 1]};
    }
  }

  __device__ StepPair element(int step) const {
    return memory.elements[warp][step * Layout::kStride + pair];
  }
  __device__ float2 grad(int step) const {
    return memory.dy[warp][step * Memory::kGradStride + pair];
  }
  __device__ void row(float (&value)[kEach], const float* of, int step) const {
    load_vector(value, of + step * Memory::kRowStride + order * kStates + state * kEach);
  }
  /// A step forward.
  __device__ void advance(States& h, int step) const {
    const StepPair now = element(step);
    float row_b[kEach];
    row(row_b, memory.B, step);
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      h[0][j] = exp2_fast(now.dt0 * A[0][j]) * h[0][j] + now.dtu0 * row_b[j];
      h[1][j] = exp2_fast(now.dt1 * A[1][j]) * h[1][j] + now.dtu1 * row_b[j];
    }
  }

  /// The warp's sums over its channels of four terms of dB and four of dC: of one state of one of
  /// the two in each lane.
  __device__ float sum_over_channels(float (&of_b)[kEach], float (&of_c)[kEach]) const {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      of_b[j] += __shfl_xor_sync(kAllLanes, of_b[j + 2], 2 * kLanes);
      of_c[j] += __shfl_xor_sync(kAllLanes, of_c[j + 2], 2 * kLanes);
    }
    of_b[0] += __shfl_xor_sync(kAllLanes, of_b[1], kLanes);
    of_c[0] += __shfl_xor_sync(kAllLanes, of_c[1], kLanes);
    const bool upper = pair >= 4;
    const float sent = upper ? of_b[0] : of_c[0], kept = upper ? of_c[0] : of_b[0];
    return kept + __shfl_xor_sync(kAllLanes, sent, 4 * kLanes);
  }

  __device__ void keep_start(int part, const States& h) {
    memory.starts[part][0][threadIdx.x] = {h[0][0], h[0][1], h[0][2], h[0][3]};
    memory.starts[part][1][threadIdx.x] = {h[1][0], h[1][1], h[1][2], h[1][3]};
  }
  /// Walks a part forward from the state before it, then backwards, and leaves the warp's sums.
  __device__ void walk_back(int part, int buffer) {
    const int first = part * kPart;
    States before;
    load_vector(before[0], reinterpret_cast<const float*>(&memory.starts[part][0][threadIdx.x]));
    load_vector(before[1], reinterpret_cast<const float*>(&memory.starts[part][1][threadIdx.x]));
    float decay[kPart][kPair][kEach], h[kPart][kPair][kEach];  // h: after each step
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      const StepPair now = element(first + i);
      float row_b[kEach];
      row(row_b, memory.B, first + i);
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
#pragma unroll
        for (int c = 0; c < kPair; ++c) {
          decay[i][c][j] = exp2_fast((c == 0 ? now.dt0 : now.dt1) * A[c][j]);
          h[i][c][j] = decay[i][c][j] * (i == 0 ? before[c][j] : h[i > 0 ? i - 1 : 0][c][j]) +
                       (c == 0 ? now.dtu0 : now.dtu1) * row_b[j];
        }
      }
    }
    float sums[kPair][2 * kPart];  // over states: through B of each step, then through A
    float* const to = &memory.sums[first][warp][pair / 4 * kStates + state_of(0)];
#pragma unroll
    for (int i = kPart - 1; i >= 0; --i) {
      const StepPair now = element(first + i);
      const float2 dy_now = grad(first + i);
      float row_b[kEach], row_c[kEach], of_b[kEach], of_c[kEach];
      row(row_b, memory.B, first + i);
      row(row_c, memory.C, first + i);
#pragma unroll
      for (int c = 0; c < kPair; ++c) {
        const float grad_y = c == 0 ? dy_now.x : dy_now.y;
        const float dt = c == 0 ? now.dt0 : now.dt1, dtu = c == 0 ? now.dtu0 : now.dtu1;
        float sum_b = 0, sum_a = 0;
#pragma unroll
        for (int j = 0; j < kEach; ++j) {
          g[c][j] += grad_y * row_c[j];
          of_b[j] = c == 0 ? g[c][j] * dtu : of_b[j] + g[c][j] * dtu;
          of_c[j] = c == 0 ? grad_y * h[i][c][j] : of_c[j] + grad_y * h[i][c][j];
          sum_b += g[c][j] * row_b[j];
          g[c][j] *= decay[i][c][j];
          const float flow = g[c][j] * (i == 0 ? before[c][j] : h[i > 0 ? i - 1 : 0][c][j]);
          sum_a += flow * A[c][j];
          dA[c][j] += flow * dt;
        }
        sums[c][i] = sum_b;
        sums[c][kPart + i] = sum_a;
      }
      to[i * (kWarps * 2 * kStates)] = sum_over_channels(of_b, of_c);
    }
    sum_over_lanes<kLanes>(sums[0], state);
    sum_over_lanes<kLanes>(sums[1], state);
    finish(part, sums, buffer);
  }

  /// Writes du and ddelta of the step of a part that the thread owns; adds to the sums over time.
  __device__ void finish(int part, const float (&sums)[kPair][2 * kPart], int buffer) {
    const int step = part * kPart + state;
    const StepPair now = element(step);
    const float2 dy_now = grad(step);
    const float4 own = memory.own[part][threadIdx.x];
    constexpr float kBack = static_cast<float>(kLn2);
    const float grad0 = (own.x * sums[0][0] + sums[0][1] * kBack) * own.z;
    const float grad1 = (own.y * sums[1][0] + sums[1][1] * kBack) * own.w;
    dD[0] += dy_now.x * own.x;
    dD[1] += dy_now.y * own.y;
    dbias[0] += grad0;
    dbias[1] += grad1;
    store_two(du, active ? memory.rows[buffer][kInput][step] : kNoRow,
              now.dt0 * sums[0][0] + skip[0] * dy_now.x, now.dt1 * sums[1][0] + skip[1] * dy_now.y);
    store_two(ddelta, active ? memory.rows[buffer][kStep][step] : kNoRow, grad0, grad1);
  }

  /// Adds the warps' sums of dB and dC; `at`: the element where the tile's first row begins.
  __device__ void write_sums(int64_t at, int left) {
    const int x = threadIdx.x % kWarp, n = x % kStates, states = static_cast<int>(call.states);
    float* const to = static_cast<float*>(x >= kStates ? call.dC : call.dB) + at + n;
#pragma unroll
    for (int round = 0; round < kTile / kWarps; ++round) {
      const int step = round * kWarps + warp;
      float sum = memory.sums[step][0][x];
#pragma unroll
      for (int w = 1; w < kWarps; ++w) sum += memory.sums[step][w][x];
      store_if(step < left && n < states ? 0 : kNoRow, to + step * states, sum);
    }
  }

  __device__ void load_gradient() {
#pragma unroll
    for (int c = 0; c < kPair; ++c) {
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        const int n = state_of(j);
        if (call.piece_grad) {
          g[c][j] = static_cast<const float*>(call.piece_grad)[(slot_channel() + c) * kStates + n];
        } else if (call.dfinal && n < static_cast<int>(call.states)) {
          g[c][j] =
              static_cast<const float*>(call.dfinal)[(sequence_channel() + c) * call.states + n];
        }
      }
    }
  }
  __device__ void load_start(States& start, const float* saved) const {
#pragma unroll
    for (int c = 0; c < kPair; ++c) load_vector(start[c], saved + c * kStates);
  }

  /// Calls walk(tile, its steps inside the piece, its rows' buffer) for every tile from the end;
  /// the next tile's rows are on their way meanwhile.
  template <class Walk>
  __device__ void for_tiles(const Walk& walk) {
    const int length = static_cast<int>(piece.end - piece.begin);
    const int tiles = (length + kTile - 1) / kTile;
    if (tiles > 0) {
      find(piece.begin + int64_t{tiles - 1} * kTile, (tiles - 1) & 1);
      if (tiles > 1) find(piece.begin + int64_t{tiles - 2} * kTile, tiles & 1);
      __syncthreads();
      request((tiles - 1) & 1);
    }
    for (int tile = tiles - 1; tile >= 0; --tile) {
      const int left = length - tile * kTile;
      put(left);
      __syncthreads();
      if (tile > 0) request((tile & 1) ^ 1);
      walk(tile, left, tile & 1);
      // the walk's last barrier came after the last use of this tile's rows
      if (tile > 1) find(piece.begin + int64_t{tile - 2} * kTile, tile & 1);
    }
  }

  __device__ void run() {
    load_gradient();
    const int64_t chunk_stride = call.channels * kStates;
    const int length = static_cast<int>(piece.end - piece.begin);
    const int64_t tiles = (length + kTile - 1) / kTile;
    const float* saved =
        static_cast<const float*>(call.saved) +
        ((b * call.saved_slots() + piece.first_chunk + tiles - 1) * call.channels + d) * kStates +
        state * kEach;
    int64_t at = ((block * call.batch + b) * call.positions + piece.begin + (tiles - 1) * kTile) *
                 call.states;
    States start = {};
    if (tiles > 0) load_start(start, saved);
    for_tiles([&](int tile, int left, int buffer) {
      States h;
#pragma unroll
      for (int c = 0; c < kPair; ++c) {
        reorder(start[c], order);
#pragma unroll
        for (int j = 0; j < kEach; ++j) h[c][j] = start[c][j];
      }
      saved -= chunk_stride;
      if (tile > 0) load_start(start, saved);
#pragma unroll 1
      for (int part = 0; part + 1 < kParts; ++part) {
        keep_start(part, h);
#pragma unroll
        for (int i = 0; i < kPart; ++i) advance(h, part * kPart + i);
      }
      keep_start(kParts - 1, h);
#pragma unroll 1
      for (int part = kParts - 1; part >= 0; --part) walk_back(part, buffer);
      __syncthreads();
      write_sums(at, left);
      at -= kTile * call.states;
    });
    finish_piece();
  }

  __device__ void store_states_of(float* to, int64_t states, const States& value) const {
    if (!active) return;
#pragma unroll
    for (int c = 0; c < kPair; ++c) {
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        if (state_of(j) < states) to[c * states + state_of(j)] = value[c][j];
      }
    }
  }
  __device__ void finish_piece() {
#pragma unroll
    for (int c = 0; c < kPair; ++c) {
#pragma unroll
      for (int m = 1; m < kLanes; m *= 2) {
        dD[c] += __shfl_xor_sync(kAllLanes, dD[c], m);
        dbias[c] += __shfl_xor_sync(kAllLanes, dbias[c], m);
      }
      if (!active || state != 0) continue;
      if (call.dD) static_cast<float*>(call.dD)[slot_channel() + c] = dD[c];
      if (call.dbias) static_cast<float*>(call.dbias)[slot_channel() + c] = dbias[c];
    }
    store_states_of(static_cast<float*>(call.dA) + slot_channel() * kStates, kStates, dA);
    if (call.dinitial && piece.used && piece.first) {
      store_states_of(static_cast<float*>(call.dinitial) + sequence_channel() * call.states,
                      call.states, g);
    }
  }
};

}  // namespace serpentine::cuda
