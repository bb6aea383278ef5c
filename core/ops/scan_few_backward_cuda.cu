// The backward pass of the selective scan on CUDA for at most four states: both walks of a tile,
// the states' forward and the gradients' backward, start from one exchange.
#include "core/ops/scan_few_cuda.cuh"

namespace serpentine::cuda {
namespace {

/// Sums value[i] over the warp for every i < kCount; lane i (and those that equal it modulo kCount)
/// returns the sum of value[i].
template <int kCount, class R>
__device__ R sum_over_warp(R (&value)[kCount], int lane) {
#pragma unroll
  for (int m = kCount / 2; m >= 1; m /= 2) {
    const bool upper = (lane & m) != 0;
#pragma unroll
    for (int i = 0; i < m; ++i) {
      const R sent = upper ? value[i] : value[i + m], kept = upper ? value[i + m] : value[i];
      value[i] = kept + __shfl_xor_sync(kAllLanes, sent, m);
    }
  }
  R sum = value[0];
#pragma unroll
  for (int m = kCount; m < kWarp; m *= 2) sum += __shfl_xor_sync(kAllLanes, sum, m);
  return sum;
}

/// kBlocks: of a multiprocessor at once. Four of them request the next tile's rows ahead.
template <class T, int N, FewPass kPass, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) backward_kernel(const ScanCall call) {
  using R = Real<T>;
  constexpr int kSteps = kRun<N>;
  constexpr bool kAhead = kBlocks == 4;
  __shared__ Action<R, N> ends[2][kWarps][kWarp], starts[2][kWarps][kWarp];
  const Few<T, N> at(call);
  R dA[N] = {}, dD = 0, dbias = 0, carry[N] = {};
  if (at.piece.used) {
    const Column<const T> u(call.u, at.b, at.k, at.d), delta(call.delta, at.b, at.k, at.d);
    const Column<const T> dy(call.dy, at.b, at.k, at.d);
    const Column<T> du(call.du, at.b, at.k, at.d), ddelta(call.ddelta, at.b, at.k, at.d);
    const RowFinder row_of(call, at.piece, at.b);
    if (kPass == FewPass::kWhole) {
      if (call.piece_grad) {
        load_vector(carry, static_cast<const R*>(call.piece_grad) + at.slot_channel() * N);
      } else {
        const auto* from = static_cast<const R*>(call.dfinal);
        load_states(carry, from ? from + at.sequence_channel() * call.states : from, 0,
                    call.states);
      }
    }
    const R* const saved =
        static_cast<const R*>(call.saved) +
        ((at.b * call.saved_slots() + at.piece.first_chunk) * call.channels + at.d) * N;

    const int length = static_cast<int>(at.piece.end - at.piece.begin);
    const int tiles = (length + kSpan<N> - 1) / kSpan<N>;
    T raw_u[kSteps], raw_delta[kSteps], raw_dy[kSteps], raw_b, raw_c;
    const bool same_rows = call.dy.by_token == call.u.by_token;
    const auto request = [&](int found, int found_dy) {
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        const int row = __shfl_sync(kAllLanes, found, i);
        raw_u[i] = load(u, row);
        raw_delta[i] = load(delta, row);
        raw_dy[i] = load(dy, __shfl_sync(kAllLanes, found_dy, i));
      }
      raw_b = at.request_states(call.B, found);
      raw_c = at.request_states(call.C, found);
    };
    const auto find_read = [&](int tile) { return at.find(row_of, tile, call.u.by_token); };
    int next = tiles > 0 ? find_read(tiles - 1) : kNoRow;
    if (kAhead) {
      request(next, tiles == 0 || same_rows ? next : at.find(row_of, tiles - 1, call.dy.by_token));
    }
    for (int tile = tiles - 1; tile >= 0; --tile) {
      const int found = next;
      if (!kAhead) request(found, same_rows ? found : at.find(row_of, tile, call.dy.by_token));
      const R held_b = wide(raw_b), held_c = wide(raw_c);
      R before[N] = {};
      if (kPass == FewPass::kWhole) load_vector(before, saved + int64_t{tile} * call.channels * N);

      R kept[kSteps][N], dt[kSteps], slope[kSteps], value_of[kSteps], grad_of[kSteps];
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        dt[i] = wide(raw_delta[i]) + at.bias;
        value_of[i] = wide(raw_u[i]);
        grad_of[i] = wide(raw_dy[i]);
      }
      if (tile > 0) {
        next = find_read(tile - 1);
        if (kAhead) {
          request(next, same_rows ? next : at.find(row_of, tile - 1, call.dy.by_token));
        }
      }
      steps_of(dt, slope, call.softplus);
      const int left = length - tile * kSpan<N> - at.warp * kSteps;
      Action<R, N> forth, back;
#pragma unroll
      for (int n = 0; n < N; ++n) {
        forth.decay[n] = 1;
        forth.made[n] = back.made[n] = 0;
      }
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        if (i >= left) dt[i] = 0;  // behind the end the state stays
        const R dtu = dt[i] * value_of[i];
#pragma unroll
        for (int n = 0; n < N; ++n) {
          kept[i][n] = exp2_fast(dt[i] * at.A[n]);
          forth.decay[n] *= kept[i][n];
          forth.made[n] = kept[i][n] * forth.made[n] + dtu * at.state_of(held_b, i, n);
        }
      }
#pragma unroll
      for (int i = kSteps - 1; i >= 0; --i) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
          back.made[n] = kept[i][n] * (back.made[n] + grad_of[i] * at.state_of(held_c, i, n));
        }
      }
#pragma unroll
      for (int n = 0; n < N; ++n) back.decay[n] = forth.decay[n];
      if (kPass == FewPass::kWhole) ends[tile & 1][at.warp][at.lane] = forth;
      starts[tile & 1][at.warp][at.lane] = back;
      __syncthreads();
      R h[N], g[N];
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        if (kPass == FewPass::kSummary) break;
        const Action<R, N> other = ends[tile & 1][w][at.lane];
#pragma unroll
        for (int n = 0; n < N; ++n) {
          if (w == at.warp) h[n] = before[n];
          before[n] = other.decay[n] * before[n] + other.made[n];
        }
      }
#pragma unroll
      for (int w = kWarps - 1; w >= 0; --w) {
        const Action<R, N> other = starts[tile & 1][w][at.lane];
#pragma unroll
        for (int n = 0; n < N; ++n) {
          if (w == at.warp) g[n] = carry[n];
          carry[n] = other.decay[n] * carry[n] + other.made[n];
        }
      }
      if (kPass == FewPass::kSummary) continue;

      R past[kSteps][N];  // the state before each step
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
          past[i][n] = h[n];
          h[n] = kept[i][n] * h[n] + dt[i] * value_of[i] * at.state_of(held_b, i, n);
        }
      }
      const int row_u =
          call.du.by_token == call.u.by_token ? found : at.find(row_of, tile, call.du.by_token);
      const int row_delta = call.ddelta.by_token == call.u.by_token
                                ? found
                                : at.find(row_of, tile, call.ddelta.by_token);
      R terms_b[kSteps * N], terms_c[kSteps * N];
#pragma unroll
      for (int i = kSteps - 1; i >= 0; --i) {
        const R value = value_of[i], grad = at.active ? grad_of[i] : R(0);
        R through_b = 0, through_a = 0;
#pragma unroll
        for (int n = 0; n < N; ++n) {
          const R row_b = at.state_of(held_b, i, n);
          terms_c[i * N + n] = grad * h[n];
          h[n] = past[i][n];
          g[n] += grad * at.state_of(held_c, i, n);
          terms_b[i * N + n] = at.active ? g[n] * dt[i] * value : R(0);
          through_b += g[n] * row_b;
          g[n] *= kept[i][n];
          const R flow = g[n] * h[n];
          through_a += flow * at.A[n];
          dA[n] += flow * dt[i];
        }
        const R step_grad = (value * through_b + through_a * static_cast<R>(kLn2)) * slope[i];
        dD += grad * value;
        const int to_u = __shfl_sync(kAllLanes, row_u, i);
        const int to_delta = __shfl_sync(kAllLanes, row_delta, i);
        if (i < left) dbias += step_grad;
        store(du, at.active ? to_u : kNoRow, dt[i] * through_b + at.skip * grad);
        store(ddelta, at.active ? to_delta : kNoRow, step_grad);
      }
      const R sum_b = sum_over_warp(terms_b, at.lane), sum_c = sum_over_warp(terms_c, at.lane);
      const int step = at.lane / N, n = at.lane % N;
      const int64_t position = at.piece.begin + int64_t{tile} * kSpan<N> + at.warp * kSteps + step;
      if (step < kSteps && n < call.states && position < at.piece.end) {
        const int64_t to =
            ((at.block * call.batch + at.b) * call.positions + position) * call.states + n;
        static_cast<R*>(call.dB)[to] = sum_b;
        static_cast<R*>(call.dC)[to] = sum_c;
      }
    }
  }

  if (kPass == FewPass::kSummary) {
    if (at.piece.used && at.warp == 0 && at.active) {
      store_vector(static_cast<R*>(call.piece_grad) + at.slot_channel() * N, carry);
    }
    return;
  }
  // the warps' sums, added in their order; a slot without a piece leaves zeros
  __shared__ R sums[N + 2][kWarps][kWarp];
#pragma unroll
  for (int n = 0; n < N; ++n) sums[n][at.warp][at.lane] = dA[n];
  sums[N][at.warp][at.lane] = dD;
  sums[N + 1][at.warp][at.lane] = dbias;
  __syncthreads();
  if (at.warp != 0 || !at.active) return;
  R total[N + 2] = {};
#pragma unroll
  for (int i = 0; i < N + 2; ++i) {
    for (int w = 0; w < kWarps; ++w) total[i] += sums[i][w][at.lane];
  }
#pragma unroll
  for (int n = 0; n < N; ++n) static_cast<R*>(call.dA)[at.slot_channel() * N + n] = total[n];
  if (call.dD) static_cast<R*>(call.dD)[at.slot_channel()] = total[N];
  if (call.dbias) static_cast<R*>(call.dbias)[at.slot_channel()] = total[N + 1];
  if (call.dinitial && at.piece.used && at.piece.first) {
    store_states(static_cast<R*>(call.dinitial) + at.sequence_channel() * call.states, carry, 0,
                 call.states);
  }
}

}  // namespace

void few_backward(const ScanCall& call, bool summary, cudaStream_t stream) {
  for_states(call, [&](auto like, auto layout) {
    using T = decltype(like);
    constexpr int N = decltype(layout)::kEach;
    constexpr int kFew = sizeof(Real<T>) == 4 && N == 1 ? 3 : 1, kMany = kFew == 1 ? 1 : 4;
    auto kernel = backward_kernel<T, N, FewPass::kSummary, kMany>;
    if (!summary) {
      kernel = fewer_waves(blocks_of(call), 4, 3) ? backward_kernel<T, N, FewPass::kWhole, kMany>
                                                  : backward_kernel<T, N, FewPass::kWhole, kFew>;
    }
    kernel<<<blocks_of(call), kThreads, 0, stream>>>(call);
  });
}

}  // namespace serpentine::cuda
