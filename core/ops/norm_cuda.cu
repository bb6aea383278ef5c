// The norm with its residual on CUDA: a warp keeps a row in registers, so that it is read once.
#include "core/ops/fused_cuda.h"
#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda {
namespace {

__device__ float over_lanes(float value) {
#pragma unroll
  for (int m = kWarp / 2; m > 0; m /= 2) value += __shfl_xor_sync(0xffffffffU, value, m);
  return value;
}

/// A lane's values of one row: kPacks times four neighbours.
template <int kPacks>
struct Row {
  float value[kPacks][kVector];
  static __device__ int column(int pack) {
    return (pack * kWarp + static_cast<int>(threadIdx.x) % kWarp) * kVector;
  }
  template <class T>
  __device__ void load(const void* rows, int64_t row, int channels) {
#pragma unroll
    for (int j = 0; j < kPacks; ++j) {
      const int c = column(j);
      Pack<T, kVector> raw;
#pragma unroll
      for (int i = 0; i < kVector; ++i) raw.value[i] = T(0.f);
      if (c < channels) {
        raw = *reinterpret_cast<const Pack<T, kVector>*>(static_cast<const T*>(rows) +
                                                         row * channels + c);
      }
#pragma unroll
      for (int i = 0; i < kVector; ++i) value[j][i] = wide(raw.value[i]);
    }
  }
  template <class T>
  __device__ void store(void* rows, int64_t row, int channels) const {
#pragma unroll
    for (int j = 0; j < kPacks; ++j) {
      const int c = column(j);
      Pack<T, kVector> raw;
#pragma unroll
      for (int i = 0; i < kVector; ++i) raw.value[i] = narrow<T>(value[j][i]);
      if (c < channels) {
        *reinterpret_cast<Pack<T, kVector>*>(static_cast<T*>(rows) + row * channels + c) = raw;
      }
    }
  }
  __device__ void add(const Row& other) {
#pragma unroll
    for (int j = 0; j < kPacks; ++j) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) value[j][i] += other.value[j][i];
    }
  }
};

/// x + residual.
template <class T, class K, int kPacks>
__device__ void load_sum(const NormCall& call, int64_t row, Row<kPacks>& sum) {
  const auto channels = static_cast<int>(call.channels);
  sum.template load<T>(call.x, row, channels);
  if (call.residual == nullptr) return;
  Row<kPacks> residual;
  residual.template load<K>(call.residual, row, channels);
  sum.add(residual);
}

template <class T, class K, int kPacks>
__global__ void forward_kernel(const NormCall call) {
  const int64_t row = blockIdx.x * int64_t{kWarps} + threadIdx.x / kWarp;
  if (row >= call.rows) return;
  const auto channels = static_cast<int>(call.channels);
  const float each = 1.f / static_cast<float>(channels);
  Row<kPacks> s;
  load_sum<T, K>(call, row, s);
  if (call.sum != nullptr) s.template store<K>(call.sum, row, channels);
  float mean = 0, square = 0;
  if (call.layer) {
#pragma unroll
    for (int j = 0; j < kPacks; ++j) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) mean += s.value[j][i];
    }
    mean = over_lanes(mean) * each;
  }
#pragma unroll
  for (int j = 0; j < kPacks; ++j) {
    const bool inside = Row<kPacks>::column(j) < channels;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      s.value[j][i] = inside ? s.value[j][i] - mean : 0.f;
      square += s.value[j][i] * s.value[j][i];
    }
  }
  const float scale = 1.f / sqrtf(over_lanes(square) * each + call.eps);
#pragma unroll
  for (int j = 0; j < kPacks; ++j) {
    const int c = Row<kPacks>::column(j);
    if (c >= channels) break;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float bias = call.bias != nullptr ? call.bias[c + i] : 0.f;
      s.value[j][i] = fmaf(s.value[j][i] * scale, call.weight[c + i], bias);
    }
  }
  s.template store<T>(call.y, row, channels);
  if (threadIdx.x % kWarp == 0) {
    call.mean[row] = mean;
    call.scale[row] = scale;
  }
}

/// A warp takes every `warps`-th row and leaves its sums for the weight and the bias.
template <class T, class K, int kPacks>
__global__ void backward_kernel(const NormCall call) {
  const int64_t warp = blockIdx.x * int64_t{kWarps} + threadIdx.x / kWarp;
  if (warp >= call.warps) return;
  const auto channels = static_cast<int>(call.channels);
  const float each = 1.f / static_cast<float>(channels);
  Row<kPacks> weight, dweight{}, dbias{};
  weight.template load<float>(call.weight, 0, channels);
  for (int64_t row = warp; row < call.rows; row += call.warps) {
    Row<kPacks> s, g;
    load_sum<T, K>(call, row, s);
    g.template load<T>(call.dy, row, channels);
    const float mean = call.mean[row], scale = call.scale[row];
    float along = 0, level = 0;  // means of w g s and of w g
#pragma unroll
    for (int j = 0; j < kPacks; ++j) {
      const bool inside = Row<kPacks>::column(j) < channels;
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        s.value[j][i] = inside ? (s.value[j][i] - mean) * scale : 0.f;
        dweight.value[j][i] = fmaf(g.value[j][i], s.value[j][i], dweight.value[j][i]);
        dbias.value[j][i] += g.value[j][i];
        g.value[j][i] *= weight.value[j][i];
        along = fmaf(g.value[j][i], s.value[j][i], along);
        level += g.value[j][i];
      }
    }
    along = over_lanes(along) * each;
    level = call.layer ? over_lanes(level) * each : 0.f;
#pragma unroll
    for (int j = 0; j < kPacks; ++j) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        g.value[j][i] = scale * (g.value[j][i] - level - s.value[j][i] * along);
      }
    }
    if (call.dsum != nullptr) {
      s.template load<K>(call.dsum, row, channels);
      g.add(s);
    }
    g.template store<T>(call.dx, row, channels);
    if (call.dresidual != nullptr) g.template store<K>(call.dresidual, row, channels);
  }
  dweight.template store<float>(call.parts, 2 * warp, channels);
  dbias.template store<float>(call.parts, 2 * warp + 1, channels);
}

template <class T, class K, int kPacks>
void launch(const NormCall& call, bool backward, cudaStream_t queue) {
  const int64_t warps = backward ? call.warps : call.rows;
  const auto blocks = static_cast<unsigned>((warps + kWarps - 1) / kWarps);
  if (backward) {
    backward_kernel<T, K, kPacks><<<blocks, kThreads, 0, queue>>>(call);
  } else {
    forward_kernel<T, K, kPacks><<<blocks, kThreads, 0, queue>>>(call);
  }
}

template <class T, class K>
void launch_width(const NormCall& call, bool backward, cudaStream_t queue) {
  constexpr int64_t kOne = int64_t{kWarp} * kVector;
  if (call.channels <= kOne) return launch<T, K, 1>(call, backward, queue);
  if (call.channels <= 2 * kOne) return launch<T, K, 2>(call, backward, queue);
  if (call.channels <= 4 * kOne) return launch<T, K, 4>(call, backward, queue);
  launch<T, K, 8>(call, backward, queue);
}

const char* launch_type(const NormCall& call, bool backward, void* stream) {
  if (call.rows == 0) return nullptr;
  const auto queue = static_cast<cudaStream_t>(stream);
  const bool same = call.kept == call.element;
  if (call.element == Element::kBFloat16) {
    if (same) {
      launch_width<__nv_bfloat16, __nv_bfloat16>(call, backward, queue);
    } else {
      launch_width<__nv_bfloat16, float>(call, backward, queue);
    }
  } else if (call.element == Element::kHalf) {
    if (same) {
      launch_width<__half, __half>(call, backward, queue);
    } else {
      launch_width<__half, float>(call, backward, queue);
    }
  } else {
    launch_width<float, float>(call, backward, queue);
  }
  return last_error();
}

}  // namespace

const char* norm_forward(const NormCall& call, void* stream) {
  return launch_type(call, /*backward=*/false, stream);
}

const char* norm_backward(const NormCall& call, void* stream) {
  return launch_type(call, /*backward=*/true, stream);
}

}  // namespace serpentine::cuda
