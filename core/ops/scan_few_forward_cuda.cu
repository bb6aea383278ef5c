// The forward pass of the selective scan on CUDA for at most four states.
#include "core/ops/scan_few_cuda.cuh"

namespace serpentine::cuda {
namespace {

template <class T, int N, FewPass kPass>
__global__ void __launch_bounds__(kThreads, sizeof(Real<T>) == 4 && N == 1 ? 6 : 1)
    forward_kernel(const ScanCall call) {
  using R = Real<T>;
  constexpr int kSteps = kRun<N>;
  __shared__ Action<R, N> ends[2][kWarps][kWarp];
  const Few<T, N> at(call);
  if (!at.piece.used) return;
  const Column<const T> u(call.u, at.b, at.k, at.d), delta(call.delta, at.b, at.k, at.d);
  const Column<T> y(call.y, at.b, at.k, at.d);
  const RowFinder row_of(call, at.piece, at.b);
  R carry[N] = {}, step_sum = 0;
  if (kPass == FewPass::kWhole) at.initial(carry);
  R* saved =
      call.saved && kPass == FewPass::kWhole
          ? static_cast<R*>(call.saved) +
                ((at.b * call.saved_slots() + at.piece.first_chunk) * call.channels + at.d) * N
          : nullptr;

  const int length = static_cast<int>(at.piece.end - at.piece.begin);
  const int tiles = (length + kSpan<N> - 1) / kSpan<N>;
  // the next tile's rows are requested before this one is walked
  T raw_u[kSteps], raw_delta[kSteps], raw_b, raw_c = T(0.f);
  const auto request = [&](int found) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int row = __shfl_sync(kAllLanes, found, i);
      raw_u[i] = load(u, row);
      raw_delta[i] = load(delta, row);
    }
    raw_b = at.request_states(call.B, found);
    if (kPass == FewPass::kWhole) raw_c = at.request_states(call.C, found);
  };
  int next = at.find(row_of, 0, call.u.by_token);
  request(next);
  for (int tile = 0; tile < tiles; ++tile) {
    const int found = next;
    next = at.find(row_of, tile + 1, call.u.by_token);
    const R held_b = wide(raw_b), held_c = wide(raw_c);
    R dt[kSteps], kept[kSteps][N], input[kSteps][N], passed[kSteps];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      dt[i] = wide(raw_delta[i]) + at.bias;
      passed[i] = wide(raw_u[i]);
    }
    if (tile + 1 < tiles) request(next);
    steps_of(dt, call.softplus);
    const int left = length - tile * kSpan<N> - at.warp * kSteps;
    Action<R, N> run;
#pragma unroll
    for (int n = 0; n < N; ++n) {
      run.decay[n] = 1;
      run.made[n] = 0;
    }
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      if (i >= left) dt[i] = 0;  // behind the end the state stays
      const R dtu = dt[i] * passed[i];
      passed[i] *= at.skip;
      if (kPass == FewPass::kSummary) step_sum += dt[i];
#pragma unroll
      for (int n = 0; n < N; ++n) {
        kept[i][n] = exp2_fast(dt[i] * at.A[n]);
        input[i][n] = dtu * at.state_of(held_b, i, n);
        run.decay[n] *= kept[i][n];
        run.made[n] = kept[i][n] * run.made[n] + input[i][n];
      }
    }
    ends[tile & 1][at.warp][at.lane] = run;
    __syncthreads();
    if (saved && at.warp == 0 && at.active) store_vector(saved, carry);
    if (saved) saved += call.channels * N;
    R h[N];
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const Action<R, N> other = ends[tile & 1][w][at.lane];
#pragma unroll
      for (int n = 0; n < N; ++n) {
        if (w == at.warp) h[n] = carry[n];
        carry[n] = other.decay[n] * carry[n] + other.made[n];
      }
    }
    if (kPass == FewPass::kSummary) continue;
    const int written =
        call.y.by_token == call.u.by_token ? found : at.find(row_of, tile, call.y.by_token);
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      R sum = passed[i];
#pragma unroll
      for (int n = 0; n < N; ++n) {
        h[n] = kept[i][n] * h[n] + input[i][n];
        sum += h[n] * at.state_of(held_c, i, n);
      }
      const int row = __shfl_sync(kAllLanes, written, i);
      store(y, at.active ? row : kNoRow, sum);
    }
  }
  if (kPass == FewPass::kSummary) {
    __shared__ R sums[kWarps][kWarp];
    sums[at.warp][at.lane] = step_sum;
    __syncthreads();
    if (at.warp != 0 || !at.active) return;
    R total = 0;
    for (int w = 0; w < kWarps; ++w) total += sums[w][at.lane];
    store_vector(static_cast<R*>(call.piece_state) + at.slot_channel() * N, carry);
    static_cast<R*>(call.piece_step)[at.slot_channel()] = total;
  } else if (call.final_state && at.piece.last && at.warp == 0 && at.active) {
    store_states(static_cast<R*>(call.final_state) + at.sequence_channel() * call.states, carry, 0,
                 call.states);
  }
}

}  // namespace

void few_forward(const ScanCall& call, bool summary, cudaStream_t stream) {
  for_states(call, [&](auto like, auto layout) {
    using T = decltype(like);
    constexpr int N = decltype(layout)::kEach;
    if (summary) {
      forward_kernel<T, N, FewPass::kSummary><<<blocks_of(call), kThreads, 0, stream>>>(call);
    } else {
      forward_kernel<T, N, FewPass::kWhole><<<blocks_of(call), kThreads, 0, stream>>>(call);
    }
  });
}

}  // namespace serpentine::cuda
