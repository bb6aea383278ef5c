// The forward pass of the selective scan on CUDA for more than four states: a warp walks time with
// its channels' states in registers; no prefix scan, no copy of any row.
//
// A block stands for kThreads / lanes neighbouring channels of one piece. Per tile, each thread
// reads u and delta of its own (channel, step) elements, coalesced along the channels, and turns
// them into dt and dt u once; B and C of the tile lie in shared memory for all channels. The next
// tile's rows are requested before this one's recurrence runs, so that it hides their latency.
#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda {
namespace {

enum class Pass {
  kWhole,    // the outputs
  kSummary,  // only the state that a piece makes from zero, and its sum of dt
};

/// How a tile's elements are spread: thread (channel c, state lane s) owns steps s, s + owners, ...
template <int kLanes>
struct Owned {
  static constexpr int kOwners = kLanes < 8 ? kLanes : 8;  // lanes that own elements
  static constexpr int kCount = kTile / kOwners;
  static __device__ int step(int i, int state) { return i * kOwners + state % kOwners; }
};

/// Rows of B and C of one tile on their way from memory to shared memory.
template <class T, int kStates>
struct StateRows {
  static constexpr int kCount = (kTile * kStates + kThreads - 1) / kThreads;
  T b[kCount], c[kCount];

  // a thread's state is the same in every row, unless a row is longer than the block
  static __device__ int state() { return threadIdx.x % kStates; }
  __device__ void request(const Column<const T>& from_b, const Column<const T>& from_c,
                          const int* rows, int states) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int step = (threadIdx.x + i * kThreads) / kStates % kTile;
      const int behind = i * kThreads % kStates;
      const int row = state() + behind < states ? rows[step] : kNoRow;
      b[i] = load(from_b, row, behind);
      c[i] = load(from_c, row, behind);
    }
  }
  template <class R>
  __device__ void put(R* tile_b, R* tile_c) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int at = threadIdx.x + i * kThreads;
      if (kTile * kStates % kThreads != 0 && at >= kTile * kStates) continue;
      tile_b[at] = wide(b[i]);
      tile_c[at] = wide(c[i]);
    }
  }
};

template <class T, int kEach, int kLanes, Pass kPass>
__global__ void __launch_bounds__(kThreads, sizeof(Real<T>) == 4 && kEach == 4 ? 4 : 3)
    forward_kernel(const ScanCall call) {
  using R = Real<T>;
  using Steps = Owned<kLanes>;
  constexpr int kOwned = Steps::kCount, kOwners = Steps::kOwners, kStates = kEach * kLanes;
  extern __shared__ __align__(16) unsigned char memory[];
  R* const shared = reinterpret_cast<R*>(memory);  // [2][B, C][kTile][kStates]
  __shared__ int rows[3][2][kTile];                // of tiles t, t + 1, t + 2: read, written

  const Place<kEach, kLanes> at(call);
  const Piece piece = find_piece(call, at.slot);
  if (!piece.used) return;
  const int64_t b = at.b, k = call.branch[piece.sequence];
  const bool active = at.channel < call.channels;
  const bool writes = active && at.state < kOwners;
  const int64_t d = active ? at.channel : 0;
  const Column<const T> u(call.u, b, k, d), delta(call.delta, b, k, d);
  using States = StateRows<T, kStates>;
  const Column<const T> B(call.B, b, k, States::state()), C(call.C, b, k, States::state());
  const Column<T> y(call.y, b, k, d);
  const RowFinder row_of(call, piece, b);
  const int first_state = at.state * kEach;

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
  R* saved =
      call.saved && kPass == Pass::kWhole
          ? static_cast<R*>(call.saved) +
                ((b * call.saved_slots() + piece.first_chunk) * call.channels + d) * kStates +
                first_state
          : nullptr;

  const bool finds = threadIdx.x < 2 * kTile, finds_read = threadIdx.x < kTile;
  const bool by_token = finds_read ? call.u.by_token : call.y.by_token;
  const auto find = [&](int tile) {
    return row_of(static_cast<int>(piece.begin) + tile * kTile + threadIdx.x % kTile, by_token);
  };
  T raw_u[kOwned], raw_delta[kOwned];
  States state_rows;
  const auto request = [&](const int* from) {
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      const int row = from[Steps::step(i, at.state)];
      raw_u[i] = load(u, row);
      raw_delta[i] = load(delta, row);
    }
    state_rows.request(B, C, from, static_cast<int>(call.states));
  };

  if (finds) {
    (&rows[0][0][0])[threadIdx.x] = find(0);
    (&rows[1][0][0])[threadIdx.x] = find(1);
  }
  __syncthreads();
  request(rows[0][0]);

  const int length = static_cast<int>(piece.end - piece.begin);
  const int tiles = (length + kTile - 1) / kTile;
  constexpr int kTilesAChunk = kStates < 32 ? 1 : kStates / 16;
  int now = 0;  // tile % 3
  for (int tile = 0; tile < tiles; ++tile) {
    const int next = now == 2 ? 0 : now + 1, ahead = next == 2 ? 0 : next + 1;
    const int* const written = rows[now][1];
    R* const tile_b = shared + (tile & 1) * 2 * kTile * kStates;
    R* const tile_c = tile_b + kTile * kStates;
    state_rows.put(tile_b, tile_c);
    R dt[kOwned], dtu[kOwned], passed[kOwned];
#pragma unroll
    for (int i = 0; i < kOwned; ++i) dt[i] = wide(raw_delta[i]) + bias;
    steps_of(dt, call.softplus);
    const int left = length - tile * kTile;
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      const R value = wide(raw_u[i]);
      if (Steps::step(i, at.state) >= left) dt[i] = 0;  // behind the end the state stays
      dtu[i] = dt[i] * value;
      passed[i] = skip * value;
      if (kPass == Pass::kSummary) step_sum += dt[i];
    }
    const int found = finds ? find(tile + 2) : 0;
    __syncthreads();  // this tile's B and C, and the next one's rows, are there
    if (tile + 1 < tiles) request(rows[next][0]);
    if (saved && tile % kTilesAChunk == 0) {
      if (active) store_vector(saved, h);
      saved += saved_stride;
    }

#pragma unroll
    for (int half = 0; half < kTile; half += 8) {
      R sums[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int step = half + i, held = step / kOwners, owner = step % kOwners;
        R step_dt = dt[held], step_dtu = dtu[held];
        if (kLanes > 1) {
          step_dt = __shfl_sync(kAllLanes, step_dt, owner, kLanes);
          step_dtu = __shfl_sync(kAllLanes, step_dtu, owner, kLanes);
        }
        R row_b[kEach], row_c[kEach];
        load_vector(row_b, tile_b + step * kStates + first_state);
        if (kPass == Pass::kWhole) load_vector(row_c, tile_c + step * kStates + first_state);
        R sum = 0;
#pragma unroll
        for (int n = 0; n < kEach; ++n) {
          h[n] = exp2_fast(step_dt * A[n]) * h[n] + step_dtu * row_b[n];
          if (kPass == Pass::kWhole) sum += h[n] * row_c[n];
        }
        sums[i] = sum;
      }
      if (kPass == Pass::kSummary) continue;
      sum_over_lanes<kLanes>(sums, at.state);
#pragma unroll
      for (int q = 0; q < 8 / kOwners; ++q) {
        const int i = half / kOwners + q;
        const int row = writes ? written[Steps::step(i, at.state)] : kNoRow;
        store(y, row, sums[q] + passed[i]);
      }
    }
    if (finds) (&rows[ahead][0][0])[threadIdx.x] = found;
    now = next;
  }

  if (kPass == Pass::kSummary) {
#pragma unroll
    for (int m = 1; m < kOwners; m *= 2) step_sum += __shfl_xor_sync(kAllLanes, step_sum, m);
  }
  if (!active) return;
  if (kPass == Pass::kSummary) {
    store_vector(static_cast<R*>(call.piece_state) + slot_state + first_state, h);
    if (at.state == 0) {
      static_cast<R*>(call.piece_step)[(b * call.slots() + at.slot) * call.channels + d] = step_sum;
    }
  } else if (call.final_state && piece.last) {
    store_states(static_cast<R*>(call.final_state) + sequence_state, h, first_state, call.states);
  }
}

template <class T, int kEach, int kLanes, Pass kPass>
void launch(const ScanCall& call, cudaStream_t stream) {
  constexpr int kBytes = 4 * kTile * kEach * kLanes * sizeof(Real<T>);
  const auto kernel = forward_kernel<T, kEach, kLanes, kPass>;
  if (kBytes > 40 * 1024) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  }
  kernel<<<static_cast<unsigned>(block_count(call)), kThreads, kBytes, stream>>>(call);
}

template <class T, int kEach, int kLanes>
void run_layout(const ScanCall& call, bool summary, cudaStream_t stream) {
  if (summary) {
    launch<T, kEach, kLanes, Pass::kSummary>(call, stream);
  } else {
    launch<T, kEach, kLanes, Pass::kWhole>(call, stream);
  }
}

void run(const ScanCall& call, bool summary, cudaStream_t stream) {
  if (call.layout().lanes == 1) return few_forward(call, summary, stream);
  for_element(call.element, [&](auto like) {
    for_layout(call.layout(), [&](auto layout) {
      using L = decltype(layout);
      run_layout<decltype(like), L::kEach, L::kLanes>(call, summary, stream);
    });
  });
}

}  // namespace

const char* scan_forward(const ScanCall& call, void* stream) {
  return walk_pieces(call, stream, run, chain_states);
}

}  // namespace serpentine::cuda
