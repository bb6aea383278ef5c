// The backward pass of the selective scan of one state on CUDA, all branches of a plane in a block.
#include "core/ops/scan_plane_cuda.cuh"

namespace serpentine::cuda {
namespace {

/// Sums value[i] over the warp; lane i (modulo 8) returns the sum of value[i].
__device__ float sum_over_columns(float (&value)[kPlaneSteps], int lane) {
#pragma unroll
  for (int m = kPlaneSteps / 2; m >= 1; m /= 2) {
    const bool upper = (lane & m) != 0;
#pragma unroll
    for (int i = 0; i < m; ++i) {
      const float sent = upper ? value[i] : value[i + m], kept = upper ? value[i + m] : value[i];
      value[i] = kept + __shfl_xor_sync(kAllLanes, sent, m);
    }
  }
  float sum = value[0];
#pragma unroll
  for (int m = kPlaneSteps; m < kWarp; m *= 2) sum += __shfl_xor_sync(kAllLanes, sum, m);
  return sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads, 4) plane_backward_kernel(const ScanCall call) {
  constexpr int kSteps = kPlaneSteps, kSpan = kPlaneSpan;
  extern __shared__ float sums[];  // [tokens + 1][32]
  __shared__ Act ends[2][kWarps][kWarp], starts[2][kWarps][kWarp];
  __shared__ float over_time[3][kWarps][kWarp];
  const Plane at(call);
  at.clear(sums);
  const Column<const T> u(call.u, at.b, 0, at.d), dy(call.dy, at.b, 0, at.d);
  const Column<T> du(call.du, at.b, 0, at.d);
  const int sequences = static_cast<int>(call.sequences);
  const int64_t saved_slots = call.positions / kSpan + sequences;
  PlaneSequence now, next;
  next.enter(call, 0, at.d);

  T raw_u[kSteps], raw_delta[kSteps], raw_dy[kSteps], raw_b, raw_c;
  float start = 0;  // the saved state of the next tile
  const auto request = [&](int found, int tile) {
    const Column<const T> delta(call.delta, at.b, next.k, at.d);
    const Column<const T> B(call.B, at.b, next.k, 0), C(call.C, at.b, next.k, 0);
    raw_b = load(B, found);
    raw_c = load(C, found);
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int row = of_step(found, i);
      raw_u[i] = load(u, row);
      raw_delta[i] = load(delta, row);
      raw_dy[i] = load(dy, row);
    }
    const bool real = next.begin + tile * kSpan < next.end;
    const int64_t slot = next.begin / kSpan + next.index + tile;
    start = load_if(real ? 0 : kNoRow,
                    static_cast<const float*>(call.saved) +
                        ((at.b * saved_slots + (real ? slot : 0)) * call.channels + at.d));
  };
  using Cursor = PlaneCursor<true>;
  Cursor far(call);
  int next_tile = far.tile, next_found = at.find(far.start(), far.end);
  far.step();
  request(next_found, next_tile);
  int far_found = at.find(far.start(), far.end);
  float carry = 0, dA = 0, dD = 0, dbias = 0;
  int parity = 0;
  bool enters = true;
  for (;;) {
    const int tile = next_tile, found = next_found, spot = at.spot(found);
    now = next;
    const int64_t state = (at.b * sequences + now.index) * call.channels + at.d;
    if (enters) {
      carry = call.dfinal ? static_cast<const float*>(call.dfinal)[state] : 0.f;
      dA = dD = dbias = 0;
    }
    const float held_b = wide(raw_b), held_c = wide(raw_c);
    float before = start;
    float dt[kSteps], slope[kSteps], value_of[kSteps], grad_of[kSteps], kept[kSteps];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      dt[i] = wide(raw_delta[i]) + now.bias;
      value_of[i] = wide(raw_u[i]);
      grad_of[i] = at.active ? wide(raw_dy[i]) : 0.f;
    }
    const bool last = tile == 0;
    const bool more = !last || now.index + 1 < sequences;
    if (more) {
      if (last) next.enter(call, now.index + 1, at.d);
      next_tile = last ? Cursor::last(next.begin, next.end) : tile - 1;
      next_found = far_found;
      request(next_found, next_tile);
      far.step();
      far_found = at.find(far.start(), far.end);
    }
    steps_of(dt, slope, call.softplus);
    const int left = now.end - now.begin - tile * kSpan - at.warp * kSteps;
    Act forth, back;
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      if (i >= left) dt[i] = 0;  // behind the end the state stays
      kept[i] = exp2_fast(dt[i] * now.A);
      forth = after({kept[i], dt[i] * value_of[i] * of_step(held_b, i)}, forth);
    }
    back.decay = forth.decay;
#pragma unroll
    for (int i = kSteps - 1; i >= 0; --i) {
      back.made = kept[i] * (back.made + grad_of[i] * of_step(held_c, i));
    }
    ends[parity][at.warp][at.lane] = forth;
    starts[parity][at.warp][at.lane] = back;
    __syncthreads();
    float h = before, g = 0;
#pragma unroll
    for (int w = 0; w + 1 < kWarps; ++w) {
      if (w < at.warp) h = ends[parity][w][at.lane](h);
    }
#pragma unroll
    for (int w = kWarps - 1; w >= 0; --w) {
      if (w == at.warp) g = carry;
      carry = starts[parity][w][at.lane](carry);
    }
    parity ^= 1;

    float past[kSteps];  // the state before each step
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      past[i] = h;
      h = kept[i] * h + dt[i] * value_of[i] * of_step(held_b, i);
    }
    const Column<T> ddelta(call.ddelta, at.b, now.k, at.d);
    float terms_b[kSteps], terms_c[kSteps];
#pragma unroll
    for (int i = kSteps - 1; i >= 0; --i) {
      const float value = value_of[i], grad = grad_of[i];
      terms_c[i] = grad * h;
      h = past[i];
      g += grad * of_step(held_c, i);
      terms_b[i] = at.active ? g * dt[i] * value : 0.f;
      const float through_b = g * of_step(held_b, i);
      g *= kept[i];
      const float flow = g * h, through_a = flow * now.A;
      dA += flow * dt[i];
      dD += grad * value;
      const float step_grad = (value * through_b + through_a * static_cast<float>(kLn2)) * slope[i];
      if (i < left) dbias += step_grad;
      const int row = of_step(found, i);
      store(ddelta, at.active ? row : kNoRow, step_grad);
      sums[of_step(spot, i) + at.lane] += dt[i] * through_b + now.skip * grad;
    }
    const float sum_b = sum_over_columns(terms_b, at.lane);
    const float sum_c = sum_over_columns(terms_c, at.lane);
    if (at.lane < kSteps && at.lane < left) {
      const int64_t to = (at.block * call.batch + at.b) * call.positions + now.begin +
                         int64_t{tile} * kSpan + at.warp * kSteps + at.lane;
      static_cast<float*>(call.dB)[to] = sum_b;
      static_cast<float*>(call.dC)[to] = sum_c;
    }
    enters = last;
    if (last) {  // the runs' sums over time, added in their order
      over_time[0][at.warp][at.lane] = dA;
      over_time[1][at.warp][at.lane] = dD;
      over_time[2][at.warp][at.lane] = dbias;
      __syncthreads();
      if (threadIdx.x < kWarp && at.active) {
        float total[3] = {};
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
#pragma unroll
          for (int i = 0; i < 3; ++i) total[i] += over_time[i][w][at.lane];
        }
        static_cast<float*>(call.dA)[state] = total[0];
        if (call.dD) static_cast<float*>(call.dD)[state] = total[1];
        if (call.dbias) static_cast<float*>(call.dbias)[state] = total[2];
        if (call.dinitial) static_cast<float*>(call.dinitial)[state] = carry;
      }
    }
    if (!more) break;
  }
  __syncthreads();
  if (!at.active) return;
#pragma unroll 4
  for (int row = at.warp; row < static_cast<int>(call.plane); row += kWarps) {
    store(du, row, sums[row * kWarp + at.lane]);
  }
}

}  // namespace

const char* plane_backward(const ScanCall& call, void* stream) {
  return launch_plane(call, stream,
                      [](auto like) { return plane_backward_kernel<decltype(like)>; });
}

}  // namespace serpentine::cuda
