// Instance norm with leaky ReLU on CUDA: blocks keep chunks of a row in registers, a warp a row
// puts their moments together, and a second pass over the chunks finishes. A row of one chunk is
// read once.
#include "core/ops/instance_norm_cuda.h"
#include "core/ops/scan_cuda.cuh"

namespace serpentine::cuda {
namespace {

constexpr int kBlock = 256, kLane = 4;  // threads; neighbouring values of a thread
constexpr int kRounds = static_cast<int>(kInstanceChunk) / kBlock / kLane;
constexpr int kBlockWarps = kBlock / kWarp;

/// Where a block works.
struct Chunk {
  int64_t row, number, first;
  int count;  // pixels
  __device__ explicit Chunk(const InstanceCall& call) {
    const int64_t chunks = call.chunks();
    row = blockIdx.x / chunks;
    number = blockIdx.x % chunks;
    first = row * call.size + number * kInstanceChunk;
    count = static_cast<int>(min(kInstanceChunk, call.size - number * kInstanceChunk));
  }
  static __device__ int place(int round) {
    return (round * kBlock + static_cast<int>(threadIdx.x)) * kLane;
  }
};

/// A thread's pixels of a chunk. kPacked: rows begin where four values may be read at once.
struct Pixels {
  float value[kRounds][kLane];

  template <class T, bool kPacked>
  __device__ void load(const void* rows, const Chunk& chunk) {
    const T* from = static_cast<const T*>(rows) + chunk.first;
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const int at = Chunk::place(r);
      if constexpr (kPacked) {
        Pack<T, kLane> raw;
#pragma unroll
        for (int i = 0; i < kLane; ++i) raw.value[i] = T(0.f);
        if (at < chunk.count) raw = *reinterpret_cast<const Pack<T, kLane>*>(from + at);
#pragma unroll
        for (int i = 0; i < kLane; ++i) value[r][i] = wide(raw.value[i]);
      } else {
#pragma unroll
        for (int i = 0; i < kLane; ++i)
          value[r][i] = at + i < chunk.count ? wide(from[at + i]) : 0.f;
      }
    }
  }
  template <class T, bool kPacked>
  __device__ void store(void* rows, const Chunk& chunk) const {
    T* to = static_cast<T*>(rows) + chunk.first;
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const int at = Chunk::place(r);
      if constexpr (kPacked) {
        Pack<T, kLane> raw;
#pragma unroll
        for (int i = 0; i < kLane; ++i) raw.value[i] = narrow<T>(value[r][i]);
        if (at < chunk.count) *reinterpret_cast<Pack<T, kLane>*>(to + at) = raw;
      } else {
#pragma unroll
        for (int i = 0; i < kLane; ++i) {
          if (at + i < chunk.count) to[at + i] = narrow<T>(value[r][i]);
        }
      }
    }
  }
  /// act(value, inside) for every pixel, in place.
  template <class Act>
  __device__ void each(const Chunk& chunk, const Act& act) {
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
#pragma unroll
      for (int i = 0; i < kLane; ++i) act(value[r][i], Chunk::place(r) + i < chunk.count, r, i);
    }
  }
};

__device__ float over_warp(float value) {
#pragma unroll
  for (int m = kWarp / 2; m > 0; m /= 2) value += __shfl_xor_sync(0xffffffffU, value, m);
  return value;
}

/// Over the block, for all its threads.
__device__ float over_block(float value) {
  __shared__ float sums[kBlockWarps];
  value = over_warp(value);
  __syncthreads();  // of the sum before
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = 0;
#pragma unroll
  for (int w = 0; w < kBlockWarps; ++w) value += sums[w];
  return value;
}

struct Affine {
  float weight = 1, bias = 0, mean = 0, scale = 1, slope = 1;
  __device__ Affine(const InstanceCall& call, int64_t row) : slope(call.slope) {
    if (call.weight != nullptr) weight = call.weight[row % call.channels];
    if (call.bias != nullptr) bias = call.bias[row % call.channels];
  }
  __device__ float of(float x) const { return (x - mean) * scale; }
  __device__ float shifted(float normal) const { return fmaf(normal, weight, bias); }
  __device__ float active(float value) const { return value > 0 ? value : value * slope; }
  __device__ float gradient(float normal, float dy) const {
    return slope == 1.f || shifted(normal) > 0 ? dy : dy * slope;
  }
};

/// The mean of a chunk, and the sum of squares about it.
__device__ void moments(Pixels& x, const Chunk& chunk, float& mean, float& square) {
  float sum = 0, squares = 0;
  x.each(chunk, [&](float value, bool, int, int) { sum += value; });
  mean = over_block(sum) / static_cast<float>(chunk.count);
  x.each(chunk, [&](float value, bool inside, int, int) {
    const float apart = inside ? value - mean : 0.f;
    squares = fmaf(apart, apart, squares);
  });
  square = over_block(squares);
}

template <class T, bool kPacked>
__device__ void finish_forward(const InstanceCall& call, const Chunk& chunk, Pixels& x,
                               const Affine& affine) {
  x.each(chunk, [&](float& value, bool, int, int) {
    value = affine.active(affine.shifted(affine.of(value)));
  });
  x.store<T, kPacked>(call.y, chunk);
}

template <class T, bool kPacked>
__global__ void __launch_bounds__(kBlock) moments_kernel(const InstanceCall call) {
  const Chunk chunk(call);
  Pixels x;
  x.load<T, kPacked>(call.x, chunk);
  float mean, square;
  moments(x, chunk, mean, square);
  if (call.chunks() > 1) {
    if (threadIdx.x == 0) {
      call.parts[2 * blockIdx.x] = mean;
      call.parts[2 * blockIdx.x + 1] = square;
    }
    return;
  }
  Affine affine(call, chunk.row);
  affine.mean = mean;
  affine.scale = 1.f / sqrtf(square / static_cast<float>(call.size) + call.eps);
  if (threadIdx.x == 0) {
    call.mean[chunk.row] = affine.mean;
    call.scale[chunk.row] = affine.scale;
  }
  finish_forward<T, kPacked>(call, chunk, x, affine);
}

__device__ double over_warp(double value) {
#pragma unroll
  for (int m = kWarp / 2; m > 0; m /= 2) value += __shfl_xor_sync(0xffffffffU, value, m);
  return value;
}

/// A warp a row: the moments of its chunks together. Chan et al., COMPSTAT 1982.
__global__ void together_kernel(const InstanceCall call) {
  const int64_t row = blockIdx.x, chunks = call.chunks();
  const float* parts = call.parts + 2 * row * chunks;
  const auto count = [&](int64_t c) {
    return static_cast<double>(min(kInstanceChunk, call.size - c * kInstanceChunk));
  };
  double sum = 0, square = 0;
  for (int64_t c = threadIdx.x; c < chunks; c += kWarp) sum += count(c) * parts[2 * c];
  const double mean = over_warp(sum) / static_cast<double>(call.size);
  for (int64_t c = threadIdx.x; c < chunks; c += kWarp) {
    const double apart = parts[2 * c] - mean;
    square += parts[2 * c + 1] + count(c) * apart * apart;
  }
  square = over_warp(square) / static_cast<double>(call.size);
  if (threadIdx.x != 0) return;
  call.mean[row] = static_cast<float>(mean);
  call.scale[row] = static_cast<float>(1 / sqrt(square + call.eps));
}

template <class T, bool kPacked>
__global__ void __launch_bounds__(kBlock) apply_kernel(const InstanceCall call) {
  const Chunk chunk(call);
  Affine affine(call, chunk.row);
  affine.mean = call.mean[chunk.row];
  affine.scale = call.scale[chunk.row];
  Pixels x;
  x.load<T, kPacked>(call.x, chunk);
  finish_forward<T, kPacked>(call, chunk, x, affine);
}

/// x becomes normal, dy what reaches the norm.
__device__ void to_gradient(Pixels& x, Pixels& g, const Chunk& chunk, const Affine& affine) {
  x.each(chunk, [&](float& value, bool inside, int r, int i) {
    value = inside ? affine.of(value) : 0.f;
    g.value[r][i] = affine.gradient(value, g.value[r][i]);
  });
}

template <class T, bool kPacked>
__device__ void finish_backward(const InstanceCall& call, const Chunk& chunk, Pixels& x, Pixels& g,
                                const Affine& affine, float level, float along) {
  const float factor = affine.weight * affine.scale, each = 1.f / static_cast<float>(call.size);
  x.each(chunk, [&](float normal, bool, int r, int i) {
    g.value[r][i] = factor * (g.value[r][i] - level * each - normal * (along * each));
  });
  g.store<T, kPacked>(call.dx, chunk);
}

/// kPass 0: sums of every chunk, and the end where a row is one; 1: the end of the others.
template <class T, bool kPacked, int kPass>
__global__ void __launch_bounds__(kBlock) backward_kernel(const InstanceCall call) {
  const Chunk chunk(call);
  Affine affine(call, chunk.row);
  affine.mean = call.mean[chunk.row];
  affine.scale = call.scale[chunk.row];
  Pixels x, g;
  x.load<T, kPacked>(call.x, chunk);
  g.load<T, kPacked>(call.dy, chunk);
  to_gradient(x, g, chunk, affine);
  if constexpr (kPass == 1) {
    finish_backward<T, kPacked>(call, chunk, x, g, affine, call.sums[2 * chunk.row],
                                call.sums[2 * chunk.row + 1]);
    return;
  }
  float level = 0, along = 0;
  x.each(chunk, [&](float normal, bool, int r, int i) {
    level += g.value[r][i];
    along = fmaf(g.value[r][i], normal, along);
  });
  level = over_block(level);
  along = over_block(along);
  if (threadIdx.x == 0) {
    float* to = call.chunks() > 1 ? call.parts : call.sums;  // the same place in both
    to[2 * blockIdx.x] = level;
    to[2 * blockIdx.x + 1] = along;
  }
  if (call.chunks() == 1) finish_backward<T, kPacked>(call, chunk, x, g, affine, level, along);
}

__global__ void add_parts_kernel(const InstanceCall call) {
  const int64_t row = blockIdx.x, chunks = call.chunks();
  const float* parts = call.parts + 2 * row * chunks;
  double level = 0, along = 0;
  for (int64_t c = threadIdx.x; c < chunks; c += kWarp) {
    level += parts[2 * c];
    along += parts[2 * c + 1];
  }
  level = over_warp(level);
  along = over_warp(along);
  if (threadIdx.x != 0) return;
  call.sums[2 * row] = static_cast<float>(level);
  call.sums[2 * row + 1] = static_cast<float>(along);
}

template <class T, bool kPacked>
void launch_instance(const InstanceCall& call, bool backward, cudaStream_t queue) {
  const auto blocks = static_cast<unsigned>(call.rows * call.chunks());
  const auto rows = static_cast<unsigned>(call.rows);
  const bool many = call.chunks() > 1;
  if (!backward) {
    moments_kernel<T, kPacked><<<blocks, kBlock, 0, queue>>>(call);
    if (!many) return;
    together_kernel<<<rows, kWarp, 0, queue>>>(call);
    apply_kernel<T, kPacked><<<blocks, kBlock, 0, queue>>>(call);
  } else {
    backward_kernel<T, kPacked, 0><<<blocks, kBlock, 0, queue>>>(call);
    if (!many) return;
    add_parts_kernel<<<rows, kWarp, 0, queue>>>(call);
    backward_kernel<T, kPacked, 1><<<blocks, kBlock, 0, queue>>>(call);
  }
}

const char* launch(const InstanceCall& call, bool backward, void* stream) {
  if (call.rows == 0 || call.size == 0) return nullptr;
  const auto queue = static_cast<cudaStream_t>(stream);
  for_element(call.element, [&](auto like) {
    using T = decltype(like);
    if constexpr (sizeof(T) < 8) {  // doubles never come here
      if (call.size % kLane == 0) {
        launch_instance<T, true>(call, backward, queue);
      } else {
        launch_instance<T, false>(call, backward, queue);
      }
    }
  });
  return last_error();
}

}  // namespace

const char* instance_forward(const InstanceCall& call, void* stream) {
  return launch(call, /*backward=*/false, stream);
}

const char* instance_backward(const InstanceCall& call, void* stream) {
  return launch(call, /*backward=*/true, stream);
}

}  // namespace serpentine::cuda
