// The backward pass of the selective scan on CUDA: kernels and launches (scan_adjoint_cuda.cuh has
// the work of a block).
#include "core/ops/scan_adjoint_cuda.cuh"

namespace serpentine::cuda {
namespace {

template <class T, int kEach, int kLanes>
__global__ void __launch_bounds__(kThreads, sizeof(Real<T>) == 4 && kEach == 4 ? 4 : 1)
    backward_kernel(const ScanCall call) {
  extern __shared__ __align__(16) unsigned char memory[];
  Backward<T, kEach, kLanes> work(call, *reinterpret_cast<Shared<Real<T>, kEach, kLanes>*>(memory));
  if (work.piece.used) {
    work.run();
  } else {
    work.clear();
  }
}

template <class T, int kEach, int kLanes>
__global__ void __launch_bounds__(kThreads) summary_kernel(const ScanCall call) {
  extern __shared__ __align__(16) unsigned char memory[];
  Backward<T, kEach, kLanes> work(call, *reinterpret_cast<Shared<Real<T>, kEach, kLanes>*>(memory));
  if (work.piece.used) work.summarize();
}

template <class T, int kEach, int kLanes>
void run(const ScanCall& call, bool summary, cudaStream_t stream) {
  constexpr int kBytes = sizeof(Shared<Real<T>, kEach, kLanes>);
  const auto kernel =
      summary ? summary_kernel<T, kEach, kLanes> : backward_kernel<T, kEach, kLanes>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  kernel<<<static_cast<unsigned>(block_count(call)), kThreads, kBytes, stream>>>(call);
}

void run(const ScanCall& call, bool summary, cudaStream_t stream) {
  if (call.layout().lanes == 1) return few_backward(call, summary, stream);
  for_element(call.element, [&](auto like) {
    for_layout(call.layout(), [&](auto layout) {
      using L = decltype(layout);
      run<decltype(like), L::kEach, L::kLanes>(call, summary, stream);
    });
  });
}

}  // namespace

const char* scan_backward(const ScanCall& call, void* stream) {
  if (block_count(call) == 0) return nullptr;
  const auto queue = static_cast<cudaStream_t>(stream);
  if (call.piece != 0) {
    run(call, /*summary=*/true, queue);
    chain_gradients(call, queue);
  }
  run(call, /*summary=*/false, queue);
  return last_error();
}

}  // namespace serpentine::cuda
