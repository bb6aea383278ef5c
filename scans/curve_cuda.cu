// Keys of Z and Hilbert curves on CUDA, a thread a cell; the sums of morton.cpp and hilbert.cpp.
#include <cuda_runtime.h>

#include "scans/curve_cuda.h"

namespace serpentine::cuda {
namespace {

constexpr int kThreads = 256;

template <int kDims>
__device__ int64_t interleaved(const int64_t (&at)[kDims], int bits) {
  int64_t key = 0;
  for (int bit = 0; bit < bits; ++bit) {
#pragma unroll
    for (int i = 0; i < kDims; ++i) key |= ((at[i] >> bit) & 1) << (bit * kDims + kDims - 1 - i);
  }
  return key;
}

/// Undoes the turns of the curve, from the coarsest level down. See hilbert_key.
template <int kDims>
__device__ void straighten(int64_t (&at)[kDims], const CurveCall& call) {
  int64_t most = call.extent[0];
#pragma unroll
  for (int i = 1; i < kDims; ++i) most = max(most, call.extent[i]);
  most -= 1;
  for (int bit = static_cast<int>(call.depth > 0 ? call.depth : call.bits) - 1; bit >= 1; --bit) {
    const int64_t side = int64_t{1} << bit;
    if (call.depth == 0 && most < side) continue;
    const int64_t below = side - 1;
#pragma unroll
    for (int i = 0; i < kDims; ++i) {
      const bool set = (at[i] >> bit) & 1;
      const int64_t differ = set ? 0 : (at[0] ^ at[i]) & below;
      at[0] ^= differ ^ (set ? below : 0);
      if (i > 0) at[i] ^= differ;
    }
  }
#pragma unroll
  for (int i = 1; i < kDims; ++i) at[i] ^= at[i - 1];
  int64_t parity = at[kDims - 1] >> 1;
  for (int shift = 1; shift < call.bits; shift *= 2) parity ^= parity >> shift;
#pragma unroll
  for (int i = 0; i < kDims; ++i) at[i] ^= parity;
}

template <int kDims, bool kHilbert>
__global__ void __launch_bounds__(kThreads) keys_kernel(const CurveCall call) {
  const int64_t cell = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (cell >= call.cells) return;
  int64_t at[kDims];
#pragma unroll
  for (int i = 0; i < kDims; ++i) at[i] = call.index[cell * kDims + i];
  if constexpr (kHilbert) straighten(at, call);
  call.key[cell] = interleaved(at, call.bits);
}

template <bool kHilbert>
const char* launch(const CurveCall& call, void* stream) {
  if (call.cells == 0) return nullptr;
  const auto blocks = static_cast<unsigned>((call.cells + kThreads - 1) / kThreads);
  const auto queue = static_cast<cudaStream_t>(stream);
  if (call.dims == 2) {
    keys_kernel<2, kHilbert><<<blocks, kThreads, 0, queue>>>(call);
  } else {
    keys_kernel<3, kHilbert><<<blocks, kThreads, 0, queue>>>(call);
  }
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

const char* morton_keys(const CurveCall& call, void* stream) { return launch<false>(call, stream); }
const char* hilbert_keys(const CurveCall& call, void* stream) { return launch<true>(call, stream); }

}  // namespace serpentine::cuda
