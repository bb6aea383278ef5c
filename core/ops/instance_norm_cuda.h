// What the CUDA kernels of the instance norm know: plain memory.
#pragma once

#include "core/ops/scan_cuda.h"

namespace serpentine::cuda {

inline constexpr int64_t kInstanceChunk = 8192;  // neighbouring pixels of a block, in its registers

/// Dense rows [rows, size], row r of channel r % channels, in chunks of kInstanceChunk.
struct InstanceCall {
  Element element = Element::kFloat;
  int64_t rows = 0, channels = 0, size = 0;
  float eps = 0, slope = 1;
  const void* x = nullptr;
  const float *weight = nullptr, *bias = nullptr;  // [channels] or null
  void* y = nullptr;
  float *mean = nullptr, *scale = nullptr;  // [rows]
  float* parts = nullptr;                   // [rows, chunks, 2]

  // the backward pass alone
  const void* dy = nullptr;
  void* dx = nullptr;
  float* sums = nullptr;  // [rows, 2]: of the bias and of the weight

  constexpr int64_t chunks() const { return (size + kInstanceChunk - 1) / kInstanceChunk; }
};

/// Launch on `stream` (a cudaStream_t). Return a CUDA error's text, or null.
const char* instance_forward(const InstanceCall& call, void* stream);
const char* instance_backward(const InstanceCall& call, void* stream);

}  // namespace serpentine::cuda
