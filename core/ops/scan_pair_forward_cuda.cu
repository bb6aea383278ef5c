// The forward pass of the selective scan on CUDA with two channels a lane, for nine to 32 states of
// an even number of channels: scan_forward_cuda.cu's walk, where a row of B or C is read from
// shared memory once for both. Besides, dt of a tile is made while the tile before it is walked.
#include <algorithm>

#include "core/ops/scan_pair_cuda.cuh"

namespace serpentine::cuda {
namespace {

enum class Pass { kWhole, kSummary };

template <class T, int kLanes, Pass kPass>
__global__ void __launch_bounds__(kThreads, 3) pair_forward_kernel(const ScanCall call) {
  using Layout = PairLayout<kLanes>;
  constexpr int kEach = Layout::kEach, kStates = Layout::kStates, kOwned = Layout::kOwned;
  constexpr int kStride = Layout::kStride, kRowsOf = kTile * kStates;
  constexpr int kStateRows = (kRowsOf + kThreads - 1) / kThreads;
  constexpr bool kWhole = kPass == Pass::kWhole;
  __shared__ StepPair elements[2][kWarps][kTile * kStride];
  __shared__ __align__(16) float tile_rows[2][2][kRowsOf];  // B, C
  __shared__ int rows[4][2][kTile];                         // of tiles t to t + 3: read, written

  const int64_t blocks = (call.channels + Layout::kChannels - 1) / Layout::kChannels;
  const int64_t slots = call.slots(), slot = blockIdx.x / blocks % slots;
  const int64_t b = blockIdx.x / blocks / slots;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int state = lane % kLanes, pair = lane / kLanes;
  const int64_t channel = blockIdx.x % blocks * Layout::kChannels + (threadIdx.x / kLanes) * kPair;
  const Piece piece = find_piece(call, slot);
  if (!piece.used) return;
  const int64_t k = call.branch[piece.sequence];
  const bool active = channel < call.channels;
  const int64_t d = active ? channel : 0;
  const int first_state = state * kEach;
  const Column<const T> u(call.u, b, k, d), delta(call.delta, b, k, d);
  const int own_state = threadIdx.x % kStates;
  const Column<const T> B(call.B, b, k, own_state), C(call.C, b, k, own_state);
  const Column<T> y(call.y, b, k, d);
  const RowFinder row_of(call, piece, b);
  const bool real_state = own_state < static_cast<int>(call.states);

  const int64_t slot_state = ((b * slots + slot) * call.channels + d) * kStates + first_state;
  const int64_t sequence_state =
      ((b * call.sequences + piece.sequence) * call.channels + d) * call.states;
  float A[kPair][kEach], h[kPair][kEach] = {}, bias[kPair], skip[kPair], step_sum[kPair] = {};
#pragma unroll
  for (int c = 0; c < kPair; ++c) {
    const int64_t row = k * call.channels + d + c;
    load_states(A[c], static_cast<const float*>(call.A) + row * call.states, first_state,
                call.states);
#pragma unroll
    for (int n = 0; n < kEach; ++n) A[c][n] *= static_cast<float>(kLog2e);
    if (kWhole && call.piece_state) {
      load_vector(h[c], static_cast<const float*>(call.piece_state) + slot_state + c * kStates);
    } else if (kWhole && call.initial_state) {
      load_states(h[c],
                  static_cast<const float*>(call.initial_state) + sequence_state + c * call.states,
                  first_state, call.states);
    }
    bias[c] = call.delta_bias ? static_cast<const float*>(call.delta_bias)[row] : 0.f;
    skip[c] = call.D ? static_cast<const float*>(call.D)[row] : 0.f;
  }
  const int64_t saved_stride = call.channels * kStates;
  float* saved =
      call.saved && kWhole
          ? static_cast<float*>(call.saved) +
                ((b * call.saved_slots() + piece.first_chunk) * call.channels + d) * kStates +
                first_state
          : nullptr;

  const bool finds = threadIdx.x < 2 * kTile;
  const bool by_token = threadIdx.x < kTile ? call.u.by_token : call.y.by_token;
  const auto find = [&](int tile) {
    return row_of(static_cast<int>(piece.begin) + tile * kTile + threadIdx.x % kTile, by_token);
  };
  const int length = static_cast<int>(piece.end - piece.begin);
  const int tiles = (length + kTile - 1) / kTile;

  Two<T> raw_u[kOwned], raw_delta[kOwned];
  T raw_b[kStateRows], raw_c[kStateRows];
  float passed[kOwned][kPair], next_passed[kOwned][kPair];
  const auto request = [&](int i, int tile) {
    const int row = rows[tile & 3][0][Layout::step(i, state)];
    raw_u[i] = load_two(u, row);
    raw_delta[i] = load_two(delta, row);
  };
  const auto request_states = [&](int tile) {
#pragma unroll
    for (int i = 0; i < kStateRows; ++i) {
      const int step = (threadIdx.x + i * kThreads) / kStates % kTile;
      const int row = real_state ? rows[tile & 3][0][step] : kNoRow;
      raw_b[i] = load(B, row);
      if (kWhole) raw_c[i] = load(C, row);
    }
  };
  const auto put_states = [&](int tile) {
#pragma unroll
    for (int i = 0; i < kStateRows; ++i) {
      const int to = threadIdx.x + i * kThreads;
      if (kRowsOf % kThreads != 0 && to >= kRowsOf) continue;
      tile_rows[tile & 1][0][to] = wide(raw_b[i]);
      if (kWhole) tile_rows[tile & 1][1][to] = wide(raw_c[i]);
    }
  };
  // an owned element of a tile: what the walk needs goes to shared memory
  const auto prepare = [&](int i, int tile) {
    float dt[kPair];
#pragma unroll
    for (int c = 0; c < kPair; ++c) dt[c] = wide(raw_delta[i].value[c]) + bias[c];
    steps_of(dt, call.softplus);
    const bool behind = Layout::step(i, state) >= length - tile * kTile;
    StepPair made;
    const float u0 = wide(raw_u[i].value[0]), u1 = wide(raw_u[i].value[1]);
    made.dt0 = behind ? 0.f : dt[0];  // behind the end the state stays
    made.dt1 = behind ? 0.f : dt[1];
    made.dtu0 = made.dt0 * u0;
    made.dtu1 = made.dt1 * u1;
    next_passed[i][0] = skip[0] * u0;
    next_passed[i][1] = skip[1] * u1;
    if (!kWhole) {
      step_sum[0] += made.dt0;
      step_sum[1] += made.dt1;
    }
    elements[tile & 1][warp][Layout::step(i, state) * kStride + pair] = made;
  };

  if (finds) {
#pragma unroll
    for (int tile = 0; tile < 3; ++tile) (&rows[tile][0][0])[threadIdx.x] = find(tile);
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kOwned; ++i) request(i, 0);
  request_states(0);
#pragma unroll
  for (int i = 0; i < kOwned; ++i) prepare(i, 0);
  put_states(0);
#pragma unroll
  for (int i = 0; i < kOwned; ++i) request(i, 1);
  request_states(1);
  __syncthreads();

  constexpr int kTilesAChunk = kStates < 32 ? 1 : kStates / 16;
  for (int tile = 0; tile < tiles; ++tile) {
    const int found = finds ? find(tile + 3) : 0;
    const int* const written = rows[tile & 3][1];
    const StepPair* const element = &elements[tile & 1][warp][pair];
    const float* const row_b = &tile_rows[tile & 1][0][first_state];
    const float* const row_c = &tile_rows[tile & 1][1][first_state];
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
#pragma unroll
      for (int c = 0; c < kPair; ++c) passed[i][c] = next_passed[i][c];
    }
    put_states(tile + 1);
    request_states(tile + 2);
#pragma unroll
    for (int i = 0; i < kOwned; ++i) prepare(i, tile + 1);
#pragma unroll
    for (int i = 0; i < kOwned; ++i) request(i, tile + 2);
    if (saved && tile % kTilesAChunk == 0) {
      if (active) {
        store_vector(saved, h[0]);
        store_vector(saved + kStates, h[1]);
      }
      saved += saved_stride;
    }
#pragma unroll
    for (int half = 0; half < kTile; half += 8) {
      float sums[kPair][8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int step = half + i;
        const StepPair now = element[step * kStride];
        float B_row[kEach], C_row[kEach];
        load_vector(B_row, row_b + step * kStates);
        if (kWhole) load_vector(C_row, row_c + step * kStates);
        float sum0 = 0, sum1 = 0;
#pragma unroll
        for (int n = 0; n < kEach; ++n) {
          h[0][n] = exp2_fast(now.dt0 * A[0][n]) * h[0][n] + now.dtu0 * B_row[n];
          h[1][n] = exp2_fast(now.dt1 * A[1][n]) * h[1][n] + now.dtu1 * B_row[n];
          if (kWhole) {
            sum0 += h[0][n] * C_row[n];
            sum1 += h[1][n] * C_row[n];
          }
        }
        sums[0][i] = sum0;
        sums[1][i] = sum1;
      }
      if (!kWhole) continue;
      sum_over_lanes<kLanes>(sums[0], state);
      sum_over_lanes<kLanes>(sums[1], state);
#pragma unroll
      for (int q = 0; q < 8 / Layout::kOwners; ++q) {
        const int i = half / Layout::kOwners + q;
        const int row = active ? written[Layout::step(i, state)] : kNoRow;
        store_two(y, row, sums[0][q] + passed[i][0], sums[1][q] + passed[i][1]);
      }
    }
    if (finds) (&rows[(tile + 3) & 3][0][0])[threadIdx.x] = found;
    __syncthreads();  // the next tile's elements, B, C and rows are there
  }

  if (!kWhole) {
#pragma unroll
    for (int m = 1; m < kLanes; m *= 2) {
#pragma unroll
      for (int c = 0; c < kPair; ++c) step_sum[c] += __shfl_xor_sync(kAllLanes, step_sum[c], m);
    }
  }
  if (!active) return;
#pragma unroll
  for (int c = 0; c < kPair; ++c) {
    if (!kWhole) {
      store_vector(static_cast<float*>(call.piece_state) + slot_state + c * kStates, h[c]);
      if (state == 0) {
        static_cast<float*>(call.piece_step)[(b * slots + slot) * call.channels + d + c] =
            step_sum[c];
      }
    } else if (call.final_state && piece.last) {
      store_states(static_cast<float*>(call.final_state) + sequence_state + c * call.states, h[c],
                   first_state, call.states);
    }
  }
}

template <class T, int kLanes, Pass kPass>
void launch(const ScanCall& call, cudaStream_t stream) {
  const int64_t blocks = pair_blocks(call, PairLayout<kLanes>::kChannels);
  pair_forward_kernel<T, kLanes, kPass>
      <<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(call);
}

void run(const ScanCall& call, bool summary, cudaStream_t stream) {
  for_element(call.element, [&](auto like) {
    using T = decltype(like);
    for_layout(call.layout(), [&](auto layout) {
      constexpr int kEach = decltype(layout)::kEach, kLanes = decltype(layout)::kLanes;
      if constexpr (sizeof(T) < 8 && kEach == 4 && kLanes >= 4) {
        if (summary) {
          launch<T, kLanes, Pass::kSummary>(call, stream);
        } else {
          launch<T, kLanes, Pass::kWhole>(call, stream);
        }
      }
    });
  });
}

}  // namespace

bool takes_pairs(const ScanCall& call) {
  const StateLayout layout = call.layout();
  if (layout.each != 4 || layout.lanes < 4 || !has_pairs(call) || !in_pairs(call.y, call.element)) {
    return false;
  }
  // one channel a lane costs 5/8 of this a block of half the channels, which evens out the last
  // round better; a block alone on a multiprocessor takes three quarters of the time of two
  const int64_t pairs = waves(pair_blocks(call, kPair * call.block_channels()), 1);
  return std::max<int64_t>(2 * pairs, 3) * 4 < waves(block_count(call), 1) * 5;
}

const char* pair_forward(const ScanCall& call, void* stream) {
  return walk_pieces(call, stream, run, chain_states);
}

}  // namespace serpentine::cuda
