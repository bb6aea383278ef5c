// y silu(z) and its gradients on CUDA, in one pass each.
#include "core/ops/fused_cuda.h"
#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda {
namespace {

constexpr int kRows = 8;  // of a block, a warp each

__device__ float sigmoid_of(float x) {
  return reciprocal(1.f + exp2_fast(-x * static_cast<float>(kLog2e)));
}

template <class T>
__device__ Pack<T, kVector> load_pack(const void* rows, int64_t at) {
  return *reinterpret_cast<const Pack<T, kVector>*>(static_cast<const T*>(rows) + at);
}

template <class T>
__global__ void gate_kernel(const GateCall call) {
  const int64_t row = blockIdx.x * int64_t{kRows} + threadIdx.y;
  if (row >= call.rows) return;
  for (int64_t c = threadIdx.x * kVector; c < call.channels; c += kWarp * kVector) {
    const auto y = load_pack<T>(call.y, row * call.y_row + c);
    const auto z = load_pack<T>(call.z, row * call.z_row + c);
    Pack<T, kVector> out;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float gate = wide(z.value[i]);
      out.value[i] = narrow<T>(wide(y.value[i]) * gate * sigmoid_of(gate));
    }
    *reinterpret_cast<Pack<T, kVector>*>(static_cast<T*>(call.out) + row * call.channels + c) = out;
  }
}

template <class T>
__global__ void gate_adjoint_kernel(const GateCall call) {
  const int64_t row = blockIdx.x * int64_t{kRows} + threadIdx.y;
  if (row >= call.rows) return;
  for (int64_t c = threadIdx.x * kVector; c < call.channels; c += kWarp * kVector) {
    const auto y = load_pack<T>(call.y, row * call.y_row + c);
    const auto z = load_pack<T>(call.z, row * call.z_row + c);
    const auto g = load_pack<T>(call.g, row * call.g_row + c);
    Pack<T, kVector> dy, dz;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float gate = wide(z.value[i]), open = sigmoid_of(gate), grad = wide(g.value[i]);
      dy.value[i] = narrow<T>(grad * gate * open);
      dz.value[i] = narrow<T>(grad * wide(y.value[i]) * open * fmaf(gate, 1.f - open, 1.f));
    }
    const int64_t at = row * call.channels + c;
    *reinterpret_cast<Pack<T, kVector>*>(static_cast<T*>(call.dy) + at) = dy;
    *reinterpret_cast<Pack<T, kVector>*>(static_cast<T*>(call.dz) + at) = dz;
  }
}

const char* launch_gate(const GateCall& call, bool backward, void* stream) {
  if (call.rows == 0 || call.channels == 0) return nullptr;
  const auto blocks = static_cast<unsigned>((call.rows + kRows - 1) / kRows);
  const auto queue = static_cast<cudaStream_t>(stream);
  for_element(call.element, [&](auto like) {
    using T = decltype(like);
    if constexpr (sizeof(T) < 8) {  // doubles never come here
      if (backward) {
        gate_adjoint_kernel<T><<<blocks, dim3(kWarp, kRows), 0, queue>>>(call);
      } else {
        gate_kernel<T><<<blocks, dim3(kWarp, kRows), 0, queue>>>(call);
      }
    }
  });
  return last_error();
}

}  // namespace

const char* gate_forward(const GateCall& call, void* stream) {
  return launch_gate(call, /*backward=*/false, stream);
}

const char* gate_backward(const GateCall& call, void* stream) {
  return launch_gate(call, /*backward=*/true, stream);
}

}  // namespace serpentine::cuda
