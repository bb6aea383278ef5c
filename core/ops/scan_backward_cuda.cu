// The backward pass of the selective scan on CUDA: kernels and launches (scan_adjoint_cuda.cuh has
// the work of a block).
#include "core/ops/scan_adjoint_cuda.cuh"

namespace serpentine::cuda {
namespace {

/// kBlocks: of a multiprocessor at once; fewer have more registers each.
template <class T, int kEach, int kLanes, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) backward_kernel(const ScanCall call) {
  extern __shared__ __align__(16) unsigned char memory[];
  Backward<T, kEach, kLanes> work(call, *reinterpret_cast<Shared<T, kEach, kLanes>*>(memory));
  if (work.piece.used) {
    work.run();
  } else {
    work.clear();
  }
}

/// The gradient of the state before a piece, made from none behind it: g alone.
template <class T, int kEach, int kLanes>
__device__ void summarize(Backward<T, kEach, kLanes>& work) {
  using R = Real<T>;
  const int length = static_cast<int>(work.piece.end - work.piece.begin);
  for (int tile = (length + kTile - 1) / kTile - 1; tile >= 0; --tile) {
    __syncthreads();
    work.find(work.piece.begin + int64_t{tile} * kTile, 0);
    __syncthreads();
    work.request(0);
    work.put(length - tile * kTile, 0);
    __syncthreads();
#pragma unroll
    for (int step = kTile - 1; step >= 0; --step) {
      const Element4<R> now = work.element(step);
      R row_c[kEach];
      load_vector(row_c, work.memory.C + step * kEach * kLanes + work.first_state);
#pragma unroll
      for (int n = 0; n < kEach; ++n) {
        work.g[n] = (work.g[n] + now.dy * row_c[n]) * exp2_fast(now.dt * work.A[n]);
      }
    }
  }
  if (!work.active) return;
  store_vector(static_cast<R*>(work.call.piece_grad) + work.slot_channel() * (kEach * kLanes) +
                   work.first_state,
               work.g);
}

template <class T, int kEach, int kLanes>
__global__ void __launch_bounds__(kThreads) summary_kernel(const ScanCall call) {
  extern __shared__ __align__(16) unsigned char memory[];
  Backward<T, kEach, kLanes> work(call, *reinterpret_cast<Shared<T, kEach, kLanes>*>(memory));
  if (work.piece.used) summarize(work);
}

template <class T, int kEach, int kLanes>
void run_layout(const ScanCall& call, bool summary, cudaStream_t stream) {
  constexpr int kBytes = sizeof(Shared<T, kEach, kLanes>);
  static_assert(kBytes <= 227 * 1024, "a block has no more shared memory");
  auto kernel = summary_kernel<T, kEach, kLanes>;
  if (!summary) {
    if constexpr (sizeof(Real<T>) == 4 && kEach == 4) {
      kernel = fewer_waves(block_count(call), 4, 3) ? backward_kernel<T, kEach, kLanes, 4>
                                                    : backward_kernel<T, kEach, kLanes, 3>;
    } else {
      kernel = backward_kernel<T, kEach, kLanes, 1>;
    }
  }
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  kernel<<<static_cast<unsigned>(block_count(call)), kThreads, kBytes, stream>>>(call);
}

void run(const ScanCall& call, bool summary, cudaStream_t stream) {
  if (call.layout().lanes == 1) return few_backward(call, summary, stream);
  for_element(call.element, [&](auto like) {
    for_layout(call.layout(), [&](auto layout) {
      using L = decltype(layout);
      run_layout<decltype(like), L::kEach, L::kLanes>(call, summary, stream);
    });
  });
}

}  // namespace

const char* scan_backward(const ScanCall& call, void* stream) {
  return walk_pieces(call, stream, run, chain_gradients);
}

}  // namespace serpentine::cuda
