// The forward pass of the selective scan on CUDA: a warp walks time with its channels' states in
// registers; no prefix scan, no copy of any row.
//
// A block stands for kThreads / lanes neighbouring channels of one piece. Per tile, each thread reads
// u and delta of its own (channel, step) elements, coalesced along the channels, and turns them into
// dt and dt u once; B and C of the tile lie in shared memory for all channels. The next tile's rows
// are requested before this one's recurrence runs, so that it hides their latency.
#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda {
namespace {

enum class Pass {
  kWhole,    // the outputs
  kSummary,  // only the state that a piece makes from zero, and its sum of dt
};

/// How a tile's elements are spread: thread (channel c, state lane s) owns steps s, s + lanes, ...
template <int kLanes>
struct Tile {
  static constexpr int kSteps = kLanes == 1 ? 8 : kTile;
  static constexpr int kOwners = kLanes < 8 ? kLanes : 8;  // lanes that own elements
  static constexpr int kOwned = kSteps / kOwners;
  static __device__ int step(int i, int state) { return i * kOwners + state; }
};

/// Rows of B and C of one tile on their way from memory to shared memory, and the tokens behind it.
template <class T, int kSteps, int kStates>
struct StateRows {
  static constexpr int kCount = (kSteps * kStates + kThreads - 1) / kThreads;
  T b[kCount], c[kCount];

  __device__ void request(const Column<const T>& from_b, const Column<const T>& from_c,
                          const int* token, int64_t first, int count, int64_t states) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int at = threadIdx.x + i * kThreads, step = at / kStates, n = at % kStates;
      b[i] = c[i] = zero<T>();
      if (step >= count || n >= states) continue;
      const int position = static_cast<int>(first) + step;
      if (const T* row = from_b.at(position, token[step])) b[i] = row[n];
      if (const T* row = from_c.at(position, token[step])) c[i] = row[n];
    }
  }
  template <class R>
  __device__ void put(R* tile_b, R* tile_c) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int at = threadIdx.x + i * kThreads;
      if (kSteps * kStates % kThreads != 0 && at >= kSteps * kStates) continue;
      tile_b[at] = wide(b[i]);
      tile_c[at] = wide(c[i]);
    }
  }
};

template <class T, int kEach, int kLanes, Pass kPass>
__global__ void __launch_bounds__(kThreads) forward_kernel(const ScanCall call) {
  using R = Real<T>;
  using Steps = Tile<kLanes>;
  constexpr int kSteps = Steps::kSteps, kOwned = Steps::kOwned, kStates = kEach * kLanes;
  extern __shared__ __align__(16) unsigned char memory[];
  R* const rows = reinterpret_cast<R*>(memory);  // [2][B, C][kSteps][kStates]
  __shared__ int tokens[3][kSteps];

  const Place<kEach, kLanes> at(call);
  const Piece piece = find_piece(call, at.slot);
  if (!piece.used) return;
  const int64_t b = at.b, k = call.branch[piece.sequence];
  const bool active = at.channel < call.channels;
  const int64_t d = active ? at.channel : 0;
  const bool owner = active && at.state < Steps::kOwners;
  const Column<const T> u(call.u, b, k, d), delta(call.delta, b, k, d);
  const Column<const T> B(call.B, b, k, 0), C(call.C, b, k, 0);
  const int first_state = at.state * kEach;
  const int32_t* const order = call.tokens ? call.tokens + b * call.tokens_batch : nullptr;

  const int64_t channel = k * call.channels + d;
  const int64_t slot_state = ((b * call.slots() + at.slot) * call.channels + d) * kStates;
  const int64_t sequence_state =
      ((b * call.sequences + piece.sequence) * call.channels + d) * call.states;
  R A[kEach], h[kEach], step_sum = 0;
  load_states(A, static_cast<const R*>(call.A) + channel * call.states, first_state, call.states);
#pragma unroll
  for (int n = 0; n < kEach; ++n) {
    A[n] *= static_cast<R>(kLog2e);
    h[n] = 0;
  }
  if (kPass == Pass::kWhole) {
    if (call.piece_state) {
      load_vector(h, static_cast<const R*>(call.piece_state) + slot_state + first_state);
    } else if (call.initial_state) {
      load_states(h, static_cast<const R*>(call.initial_state) + sequence_state, first_state,
                  call.states);
    }
  }
  const R bias = call.delta_bias ? static_cast<const R*>(call.delta_bias)[channel] : R(0);
  const R skip = call.D ? static_cast<const R*>(call.D)[channel] : R(0);
  const int64_t saved_stride = call.channels * kStates;
  R* saved = call.saved && kPass == Pass::kWhole
                 ? static_cast<R*>(call.saved) +
                       ((b * call.saved_slots() + piece.first_chunk) * call.channels + d) * kStates +
                       first_state
                 : nullptr;

  const auto token_of = [&](int64_t tile) -> int {
    const int64_t position = piece.begin + tile * kSteps + threadIdx.x;
    if (position >= piece.end) return kNoToken;
    return order ? order[position] : static_cast<int>(position);
  };
  T raw_u[kOwned], raw_delta[kOwned];
  StateRows<T, kSteps, kStates> state_rows;
  const auto request = [&](int64_t first, const int* token) {
    const int count = static_cast<int>(min(int64_t{kSteps}, piece.end - first));
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      const int step = Steps::step(i, at.state), position = static_cast<int>(first) + step;
      raw_u[i] = raw_delta[i] = zero<T>();
      if (!owner || step >= count) continue;
      if (const T* row = u.at(position, token[step])) raw_u[i] = *row;
      if (const T* row = delta.at(position, token[step])) raw_delta[i] = *row;
    }
    state_rows.request(B, C, token, first, count, call.states);
  };

  if (threadIdx.x < kSteps) {
    tokens[0][threadIdx.x] = token_of(0);
    tokens[1][threadIdx.x] = token_of(1);
  }
  __syncthreads();
  request(piece.begin, tokens[0]);

  int64_t tile = 0;
  for (int64_t first = piece.begin; first < piece.end; first += kSteps, ++tile) {
    const int count = static_cast<int>(min(int64_t{kSteps}, piece.end - first));
    R* const tile_b = rows + (tile & 1) * 2 * kSteps * kStates;
    R* const tile_c = tile_b + kSteps * kStates;
    state_rows.put(tile_b, tile_c);
    R dt[kOwned], dtu[kOwned], passed[kOwned];
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      const R x = wide(raw_delta[i]) + bias;
      dt[i] = call.softplus ? softplus(x) : x;
      if (Steps::step(i, at.state) >= count) dt[i] = 0;  // the state stays
      const R value = wide(raw_u[i]);
      dtu[i] = dt[i] * value;
      passed[i] = skip * value;
      if (kPass == Pass::kSummary) step_sum += dt[i];
    }
    const int ahead = threadIdx.x < kSteps ? token_of(tile + 2) : 0;
    const int* const token = tokens[tile % 3];
    __syncthreads();  // this tile's B and C, and the next one's tokens, are there
    if (first + kSteps < piece.end) request(first + kSteps, tokens[(tile + 1) % 3]);
    if (saved && (first - piece.begin) % call.chunk == 0) {
      if (active) store_vector(saved, h);
      saved += saved_stride;
    }

#pragma unroll
    for (int half = 0; half < kSteps; half += 8) {
      if (half >= count) break;
      R y[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int step = half + i, held = step / Steps::kOwners;
        const R step_dt = kLanes == 1 ? dt[held] : __shfl_sync(kAllLanes, dt[held], step % Steps::kOwners, kLanes);
        const R step_dtu = kLanes == 1 ? dtu[held] : __shfl_sync(kAllLanes, dtu[held], step % Steps::kOwners, kLanes);
        R row_b[kEach], row_c[kEach];
        load_vector(row_b, tile_b + step * kStates + first_state);
        if (kPass == Pass::kWhole) load_vector(row_c, tile_c + step * kStates + first_state);
        R sum = 0;
#pragma unroll
        for (int n = 0; n < kEach; ++n) {
          h[n] = exp2_fast(step_dt * A[n]) * h[n] + step_dtu * row_b[n];
          if (kPass == Pass::kWhole) sum += h[n] * row_c[n];
        }
        y[i] = sum;
      }
      if (kPass == Pass::kSummary) continue;
      sum_over_lanes<kLanes>(y, at.state);
#pragma unroll
      for (int q = 0; q < 8 / Steps::kOwners; ++q) {
        const int i = half / Steps::kOwners + q, step = Steps::step(i, at.state);
        if (!owner || step >= count) continue;
        const int row = call.y.by_token ? token[step] : static_cast<int>(first) + step;
        if (row < 0) continue;
        store<T>(call.y.data, call.wide_y,
                 b * call.y.batch + k * call.y.branch + int64_t{row} * call.y.row + d,
                 y[q] + passed[i]);
      }
    }
    if (threadIdx.x < kSteps) tokens[(tile + 2) % 3][threadIdx.x] = ahead;
  }

  if (!active) return;
  if (kPass == Pass::kSummary) {
#pragma unroll
    for (int m = 1; m < kLanes; m *= 2) step_sum += __shfl_xor_sync(kAllLanes, step_sum, m);
    store_vector(static_cast<R*>(call.piece_state) + slot_state + first_state, h);
    if (at.state == 0) {
      static_cast<R*>(call.piece_step)[(b * call.slots() + at.slot) * call.channels + d] = step_sum;
    }
  } else if (call.final_state && piece.last) {
    store_states(static_cast<R*>(call.final_state) + sequence_state, h, first_state, call.states);
  }
}

/// Turns the states that pieces make from zero into the states before them, sequence by sequence.
template <class R>
__global__ void chain_kernel(const ScanCall call, int padded) {
  const int64_t width = call.channels * padded;
  const int64_t x = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (x >= width) return;
  const int64_t s = blockIdx.y, b = blockIdx.z, d = x / padded, n = x % padded;
  const bool real = n < call.states;
  const R A = real ? static_cast<const R*>(call.A)[(call.branch[s] * call.channels + d) * call.states + n] *
                         static_cast<R>(kLog2e)
                   : R(0);
  const int64_t start = call.offsets[s], stop = call.offsets[s + 1];
  int64_t slot = b * call.slots() + start / call.piece + s;
  R h = 0;
  if (real && call.initial_state) {
    h = static_cast<const R*>(call.initial_state)[((b * call.sequences + s) * call.channels + d) * call.states + n];
  }
  auto* states = static_cast<R*>(call.piece_state);
  const auto* steps = static_cast<const R*>(call.piece_step);
  for (int64_t begin = start; begin == start || begin < stop; begin += call.piece, ++slot) {
    const R made = states[slot * width + x];
    states[slot * width + x] = h;
    h = exp2_fast(steps[slot * call.channels + d] * A) * h + made;
  }
}

template <class T, int kEach, int kLanes, Pass kPass>
void launch(const ScanCall& call, cudaStream_t stream) {
  constexpr int kBytes = 4 * Tile<kLanes>::kSteps * kEach * kLanes * sizeof(Real<T>);
  const auto kernel = forward_kernel<T, kEach, kLanes, kPass>;
  if (kBytes > 40 * 1024) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  }
  kernel<<<static_cast<unsigned>(block_count(call)), kThreads, kBytes, stream>>>(call);
}

template <class T, int kEach, int kLanes>
void run(const ScanCall& call, cudaStream_t stream) {
  if (call.piece != 0) {
    launch<T, kEach, kLanes, Pass::kSummary>(call, stream);
    const int64_t width = call.channels * kEach * kLanes;
    const dim3 grid(static_cast<unsigned>((width + 255) / 256),
                    static_cast<unsigned>(call.sequences), static_cast<unsigned>(call.batch));
    chain_kernel<Real<T>><<<grid, 256, 0, stream>>>(call, kEach * kLanes);
  }
  launch<T, kEach, kLanes, Pass::kWhole>(call, stream);
}

}  // namespace

const char* scan_forward(const ScanCall& call, void* stream) {
  if (block_count(call) == 0) return nullptr;
  const auto queue = static_cast<cudaStream_t>(stream);
  for_element(call.element, [&](auto like) {
    using T = decltype(like);
    for_layout(call.layout(), [&](auto layout) {
      using L = decltype(layout);
      run<T, L::kEach, L::kLanes>(call, queue);
    });
  });
  return last_error();
}

}  // namespace serpentine::cuda
