// The backward pass of the selective scan on CUDA with two channels a lane: kernels and launches
// (scan_pair_adjoint_cuda.cuh has the work of a block).
#include "core/ops/scan_pair_adjoint_cuda.cuh"

namespace serpentine::cuda {
namespace {

/// kBlocks: of a multiprocessor at once; fewer have more registers each.
template <class T, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) pair_backward_kernel(const ScanCall call) {
  extern __shared__ __align__(16) unsigned char memory[];
  PairBackward<T> work(call, *reinterpret_cast<PairShared<T>*>(memory));
  if (work.piece.used) {
    work.run();
  } else {
    work.finish_piece();  // a slot without a piece adds nothing to the sums
  }
}

/// The gradient of the state before a piece, made from none behind it: g alone.
template <class T>
__device__ void summarize(PairBackward<T>& work) {
  constexpr int kEach = PairBackward<T>::kEach, kStates = PairBackward<T>::kStates;
  work.for_tiles([&](int, int, int) {
#pragma unroll
    for (int step = kTile - 1; step >= 0; --step) {
      const StepPair now = work.element(step);
      const float2 dy = work.grad(step);
      float row_c[kEach];
      work.row(row_c, work.memory.C, step);
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        work.g[0][j] = (work.g[0][j] + dy.x * row_c[j]) * exp2_fast(now.dt0 * work.A[0][j]);
        work.g[1][j] = (work.g[1][j] + dy.y * row_c[j]) * exp2_fast(now.dt1 * work.A[1][j]);
      }
    }
    __syncthreads();
  });
  work.store_states_of(static_cast<float*>(work.call.piece_grad) + work.slot_channel() * kStates,
                       kStates, work.g);
}

template <class T>
__global__ void __launch_bounds__(kThreads, 3) pair_summary_kernel(const ScanCall call) {
  extern __shared__ __align__(16) unsigned char memory[];
  PairBackward<T> work(call, *reinterpret_cast<PairShared<T>*>(memory));
  if (work.piece.used) summarize(work);
}

template <class T>
void launch(const ScanCall& call, bool summary, cudaStream_t stream) {
  constexpr int kBytes = sizeof(PairShared<T>);
  static_assert(kBytes <= 99 * 1024, "a block of the smaller GPUs has no more shared memory");
  auto kernel = pair_summary_kernel<T>;
  if (!summary) {
    kernel = fewer_waves(block_count(call), 3, 2) ? pair_backward_kernel<T, 3>
                                                  : pair_backward_kernel<T, 2>;
  }
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  kernel<<<static_cast<unsigned>(block_count(call)), kThreads, kBytes, stream>>>(call);
}

void run(const ScanCall& call, bool summary, cudaStream_t stream) {
  for_element(call.element, [&](auto like) {
    using T = decltype(like);
    if constexpr (sizeof(T) < 8) launch<T>(call, summary, stream);
  });
}

}  // namespace

int64_t pair_channels(const ScanCall& call) {
  constexpr int64_t kChannels = PairLayout<4>::kChannels;
  if (call.layout().padded() != 16 || !has_pairs(call) || !in_pairs(call.dy, call.element) ||
      !in_pairs(call.du, call.element) || !in_pairs(call.ddelta, call.element)) {
    return 0;
  }
  // in float32, three blocks of one channel a lane on a multiprocessor beat two of these
  const int64_t pairs = waves(pair_blocks(call, kChannels), 1), ones = waves(block_count(call), 1);
  const bool uneven = 2 * pairs > ones && ones == 3;
  return uneven && call.element == Element::kFloat ? 0 : kChannels;
}

const char* pair_backward(const ScanCall& call, void* stream) {
  return walk_pieces(call, stream, run, chain_gradients);
}

}  // namespace serpentine::cuda
