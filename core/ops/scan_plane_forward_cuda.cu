// The forward pass of the selective scan of one state on CUDA, all branches of a plane in a block.
#include "core/ops/scan_plane_cuda.cuh"

namespace serpentine::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads, 6) plane_forward_kernel(const ScanCall call) {
  constexpr int kSteps = kPlaneSteps, kSpan = kPlaneSpan;
  extern __shared__ float sums[];  // [tokens + 1][32]
  __shared__ Act ends[2][kWarps][kWarp];
  const Plane at(call);
  at.clear(sums);
  const Column<const T> u(call.u, at.b, 0, at.d);
  const Column<T> y(call.y, at.b, 0, at.d);
  const int sequences = static_cast<int>(call.sequences);
  PlaneSequence now, next;
  next.enter(call, 0, at.d);

  T raw_u[kSteps], raw_delta[kSteps], raw_b, raw_c;
  const auto request = [&](int found) {
    const Column<const T> delta(call.delta, at.b, next.k, at.d);
    const Column<const T> B(call.B, at.b, next.k, 0), C(call.C, at.b, next.k, 0);
    raw_b = load(B, found);
    raw_c = load(C, found);
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int row = of_step(found, i);
      raw_u[i] = load(u, row);
      raw_delta[i] = load(delta, row);
    }
  };
  PlaneCursor<false> far(call);
  int next_tile = 0, next_found = at.find(far.start(), far.end);
  far.step();
  request(next_found);
  int far_found = at.find(far.start(), far.end);
  float carry = 0;
  int parity = 0;
  for (;;) {
    const bool enters = next_tile == 0;
    const int tile = next_tile, spot = at.spot(next_found);
    now = next;
    if (enters) {
      carry = call.initial_state
                  ? static_cast<const float*>(
                        call.initial_state)[(at.b * sequences + now.index) * call.channels + at.d]
                  : 0.f;
    }
    const float held_b = wide(raw_b), held_c = wide(raw_c);
    float dt[kSteps], passed[kSteps], kept[kSteps], input[kSteps];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      dt[i] = wide(raw_delta[i]) + now.bias;
      passed[i] = wide(raw_u[i]);
    }
    // the next tile: of this sequence, or the first of the next one
    const bool last = now.begin + (tile + 1) * kSpan >= now.end;
    const bool more = !last || now.index + 1 < sequences;
    if (more) {
      next_tile = last ? 0 : tile + 1;
      if (last) next.enter(call, now.index + 1, at.d);
      next_found = far_found;
      request(next_found);
      far.step();
      far_found = at.find(far.start(), far.end);
    }
    steps_of(dt, call.softplus);
    const int left = now.end - now.begin - tile * kSpan - at.warp * kSteps;
    Act own;
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      if (i >= left) dt[i] = 0;  // behind the end the state stays
      input[i] = dt[i] * passed[i] * of_step(held_b, i);
      passed[i] *= now.skip;
      kept[i] = exp2_fast(dt[i] * now.A);
      own = after({kept[i], input[i]}, own);
    }
    ends[parity][at.warp][at.lane] = own;
    __syncthreads();
    float h = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (w == at.warp) h = carry;
      carry = ends[parity][w][at.lane](carry);
    }
    parity ^= 1;
    if (call.saved && at.warp == 0 && left > 0 && at.active) {
      const int64_t slot = now.begin / kSpan + now.index + tile;
      static_cast<float*>(
          call.saved)[(at.b * (call.positions / kSpan + sequences) + slot) * call.channels + at.d] =
          h;
    }
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      h = kept[i] * h + input[i];
      const float sum = passed[i] + h * of_step(held_c, i);
      sums[of_step(spot, i) + at.lane] += sum;
    }
    if (last && call.final_state && threadIdx.x < kWarp && at.active) {
      static_cast<float*>(call.final_state)[(at.b * sequences + now.index) * call.channels + at.d] =
          carry;
    }
    if (!more) break;
  }
  __syncthreads();
  if (!at.active) return;
  const float scale = call.mean ? 1.f / static_cast<float>(call.branches) : 1.f;
#pragma unroll 4
  for (int row = at.warp; row < static_cast<int>(call.plane); row += kWarps) {
    store(y, row, sums[row * kWarp + at.lane] * scale);
  }
}

}  // namespace

bool takes_plane(const ScanCall& call, int64_t tokens) {
  int device = 0, processors = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  const int64_t blocks = call.batch * ((call.channels + kWarp - 1) / kWarp);
  return call.element != Element::kDouble && call.states == 1 && call.piece == 0 &&
         call.u.by_token && call.branches > 1 && call.sequences <= kPlaneSequences && tokens > 0 &&
         tokens <= kPlaneTokens && blocks >= processors;
}

const char* plane_forward(const ScanCall& call, void* stream) {
  return launch_plane(call, stream, [](auto like) { return plane_forward_kernel<decltype(like)>; });
}

}  // namespace serpentine::cuda
