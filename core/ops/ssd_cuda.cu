#include "core/ops/ssd_cuda.h"

#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda {
namespace {

constexpr int kSsdBlock = 256;
constexpr int kSsdAhead = 4;  // steps whose sums are asked for at once

/// A block a chunk and head; a thread walks down its columns, so that neighbours read neighbours.
template <class T, bool kBack>
__global__ void mixing_kernel(const SsdMixing call) {
  extern __shared__ float decays[];  // [Q]; backwards [warps, Q] behind it
  const SsdSlab& slab = call.slab;
  const int length = static_cast<int>(slab.length);
  const int64_t r = blockIdx.x / slab.heads, h = blockIdx.x % slab.heads;
  const int64_t square = slab.length * slab.length;
  const float* const pairs = call.pairs + (r * slab.groups + h * slab.groups / slab.heads) * square;
  T* const mixing = static_cast<T*>(call.mixing) + blockIdx.x * square;
  for (int q = static_cast<int>(threadIdx.x); q < length; q += static_cast<int>(blockDim.x))
    decays[q] = slab.sum[(r * slab.length + q) * slab.heads + h];
  float* const rows = decays + length;
  const int warp = static_cast<int>(threadIdx.x) / kWarp,
            lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  if constexpr (kBack) {
    for (int i = static_cast<int>(threadIdx.x); i < warps * length;
         i += static_cast<int>(blockDim.x))
      rows[i] = 0;
  }
  __syncthreads();
  // all threads of a warp make the same number of rounds, as they exchange
  for (int first = 0; first < length; first += static_cast<int>(blockDim.x)) {
    const int j = first + static_cast<int>(threadIdx.x);
    const bool inside = j < length;
    const float own = inside ? decays[j] : 0;
    const float weight = kBack && inside ? call.w[(r * slab.length + j) * slab.heads + h] : 0;
    float column = 0;
    for (int i = 0; i < length; ++i) {
      const bool seen = inside && j <= i;
      const int64_t at = int64_t{i} * length + j;
      const float decay = seen ? expf(decays[i] - own) : 0;
      const float mixed = seen ? decay * pairs[at] : 0;
      if (inside) mixing[at] = narrow<T>(mixed);
      if constexpr (kBack) {
        float* const grad = call.grad + blockIdx.x * square + at;
        const float g = inside ? *grad : 0;
        if (inside) *grad = seen ? g * decay * weight : 0;
        const float term = seen ? g * mixed : 0;
        column += term;
        float row = term * weight;
#pragma unroll
        for (int step = kWarp / 2; step > 0; step /= 2)
          row += __shfl_down_sync(0xffffffffu, row, step);
        if (lane == 0) rows[warp * length + i] += row;
      }
    }
    if (kBack && inside) call.column[blockIdx.x * slab.length + j] = column;
  }
  if constexpr (kBack) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < length; i += static_cast<int>(blockDim.x)) {
      float sum = 0;
      for (int w = 0; w < warps; ++w) sum += rows[w * length + i];
      call.row[blockIdx.x * slab.length + i] = sum;
    }
  }
}

template <class T, class X>
__global__ void combine_kernel(const SsdCombine call) {
  const SsdSlab& slab = call.slab;
  const int64_t width = slab.heads * slab.channels;
  const int64_t index = blockIdx.x * int64_t{kSsdBlock} + threadIdx.x;
  if (index >= slab.chunks * slab.length * width) return;
  const int64_t row = index / width, c = index % width;  // row: (r, q)
  const int64_t r = row / slab.length, q = row % slab.length;
  const int64_t h = c / slab.channels, e = c % slab.channels;
  const int64_t scale = row * slab.heads + h;
  float sum = call.inside[((r * slab.heads + h) * slab.length + q) * slab.channels + e];
  if (call.inside_scale) sum *= call.inside_scale[scale];
  const int64_t wide = width / slab.groups, g = c / wide;
  sum += call.seen_scale[scale] *
         call.seen[((r * slab.groups + g) * slab.length + q) * wide + c % wide];
  if (call.D) {
    const X x =
        static_cast<const X*>(call.x)[r * call.x_chunk + q * call.x_row + h * call.x_head + e];
    sum += call.D[r * width + c] * cuda::wide(x);
  }
  static_cast<T*>(call.out)[index] = narrow<T>(sum);
}

__global__ void states_kernel(const SsdStates call) {
  const int64_t share = call.heads / call.groups;
  const int64_t size = call.groups * call.states * share * call.channels;  // of a state
  const int64_t index = blockIdx.x * int64_t{kSsdBlock} + threadIdx.x;
  if (index >= call.batch * call.sequences * size) return;
  const int64_t x = index % size, s = index / size % call.sequences;
  const int64_t b = index / size / call.sequences;
  const int64_t h = x / (size / call.groups) * share + x / call.channels % share;
  const int64_t chunks = call.steps * call.sequences;
  float* const sums = call.sums + (b * chunks + s) * size + x;
  const float* const decay = call.decay + (b * chunks + s) * call.heads + h;
  float state = call.state[index];
  for (int64_t first = 0; first < call.steps; first += kSsdAhead) {
    float sum[kSsdAhead], factor[kSsdAhead];
#pragma unroll
    for (int k = 0; k < kSsdAhead; ++k) {
      if (first + k >= call.steps) break;
      const int64_t step = call.forward ? first + k : call.steps - 1 - first - k;
      sum[k] = sums[step * call.sequences * size];
      factor[k] = decay[step * call.sequences * call.heads];
    }
#pragma unroll
    for (int k = 0; k < kSsdAhead; ++k) {
      if (first + k >= call.steps) break;
      const int64_t step = call.forward ? first + k : call.steps - 1 - first - k;
      sums[step * call.sequences * size] = state;
      state = fmaf(factor[k], state, sum[k]);
    }
  }
  call.state[index] = state;
}

unsigned blocks_for(int64_t values) {
  return static_cast<unsigned>((values + kSsdBlock - 1) / kSsdBlock);
}

}  // namespace

const char* ssd_mixing(const SsdMixing& call, void* stream) {
  const SsdSlab& slab = call.slab;
  if (slab.chunks * slab.heads * slab.length == 0) return nullptr;
  const int64_t wanted = (slab.length + kWarp - 1) / kWarp * kWarp;
  const auto threads = static_cast<unsigned>(wanted < kSsdBlock ? wanted : kSsdBlock);
  const auto blocks = static_cast<unsigned>(slab.chunks * slab.heads);
  const auto queue = static_cast<cudaStream_t>(stream);
  for_element(call.element, [&](auto like) {
    using T = decltype(like);
    if constexpr (sizeof(T) < 8) {
      const size_t row = static_cast<size_t>(slab.length) * sizeof(float);
      if (call.grad) {
        mixing_kernel<T, true><<<blocks, threads, row * (1 + threads / kWarp), queue>>>(call);
      } else {
        mixing_kernel<T, false><<<blocks, threads, row, queue>>>(call);
      }
    }
  });
  return last_error();
}

const char* ssd_combine(const SsdCombine& call, void* stream) {
  const SsdSlab& slab = call.slab;
  const int64_t values = slab.chunks * slab.length * slab.heads * slab.channels;
  if (values == 0) return nullptr;
  for_element(call.element, [&](auto out) {
    for_element(call.x_element, [&](auto x) {
      using T = decltype(out);
      using X = decltype(x);
      if constexpr (sizeof(T) < 8 && sizeof(X) < 8) {
        combine_kernel<T, X>
            <<<blocks_for(values), kSsdBlock, 0, static_cast<cudaStream_t>(stream)>>>(call);
      }
    });
  });
  return last_error();
}

const char* ssd_pass_states(const SsdStates& call, void* stream) {
  const int64_t values = call.batch * call.sequences * call.heads * call.states * call.channels;
  if (values == 0) return nullptr;
  states_kernel<<<blocks_for(values), kSsdBlock, 0, static_cast<cudaStream_t>(stream)>>>(call);
  return last_error();
}

}  // namespace serpentine::cuda
