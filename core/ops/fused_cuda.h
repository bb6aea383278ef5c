// What the CUDA kernels of the norm with its residual and of the gate know: plain memory.
#pragma once

#include "core/ops/scan_cuda.h"

namespace serpentine::cuda {

inline constexpr int kVector = 4;  // neighbouring values that a lane takes at once
inline constexpr int64_t kWidestNorm = 1024;

/// Dense rows [rows, channels]; channels is a multiple of kVector, at most kWidestNorm.
/// T is `element`, K is `kept`, which is T or float.
struct NormCall {
  Element element = Element::kFloat, kept = Element::kFloat;
  int64_t rows = 0, channels = 0;
  bool layer = false;  // around the mean
  float eps = 0;
  const void* x = nullptr;         // T
  const void* residual = nullptr;  // K or null
  const float* weight = nullptr;
  const float* bias = nullptr;              // or null
  void* y = nullptr;                        // T
  void* sum = nullptr;                      // K or null
  float *mean = nullptr, *scale = nullptr;  // [rows]

  // the backward pass alone
  const void* dy = nullptr;    // T
  const void* dsum = nullptr;  // K or null
  void* dx = nullptr;          // T
  void* dresidual = nullptr;   // K or null: as dx, or not wanted
  float* parts = nullptr;      // [warps, 2, channels]: of weight and bias
  int64_t warps = 0;
};

/// out = y silu(z), rows dense in the last axis with strides in elements, all of one type.
struct GateCall {
  Element element = Element::kFloat;
  int64_t rows = 0, channels = 0, y_row = 0, z_row = 0, g_row = 0;
  const void *y = nullptr, *z = nullptr;
  void* out = nullptr;  // dense

  // the backward pass alone
  const void* g = nullptr;
  void *dy = nullptr, *dz = nullptr;  // dense
};

/// Launch on `stream` (a cudaStream_t). Return a CUDA error's text, or null.
const char* norm_forward(const NormCall& call, void* stream);
const char* norm_backward(const NormCall& call, void* stream);
const char* gate_forward(const GateCall& call, void* stream);
const char* gate_backward(const GateCall& call, void* stream);

}  // namespace serpentine::cuda
