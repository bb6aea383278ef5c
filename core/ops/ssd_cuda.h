// What the CUDA kernels of state space duality know: plain memory. The matrix products are
// LibTorch's; these are the passes between them, each over its largest tensor once.
//
// R chunks, Q slots a chunk, H heads, E channels a head, G groups, N states; float32 but for what
// has an Element, which is float, bfloat16 or half. Dense unless strides are given.
#pragma once

#include "core/ops/scan_cuda.h"

namespace serpentine::cuda {

inline constexpr int64_t kLongestSsdChunk = 1024;

/// Sizes of one slab, and the running sums of the logarithms of the decays.
struct SsdSlab {
  int64_t chunks = 0, length = 0, heads = 0, channels = 0, groups = 1;
  const float* sum = nullptr;  // [R, Q, H]
};

/// mixing[r, h, i, j] = exp(sum[i] - sum[j]) pairs[r, g, i, j] for j <= i, else 0. With `grad`
/// [R, H, Q, Q], the products of the outputs' gradients with x, also
///   row[r, h, i] = sum_j grad mixing w[j],  column[r, h, j] = sum_i grad mixing,
///   grad[i, j] = grad exp(sum[i] - sum[j]) w[j], in place.
struct SsdMixing {
  SsdSlab slab;
  Element element = Element::kFloat;  // of mixing
  const float* pairs = nullptr;       // [R, G, Q, Q]
  void* mixing = nullptr;             // [R, H, Q, Q]

  const float* w = nullptr;  // [R, Q, H]
  float* grad = nullptr;
  float *row = nullptr, *column = nullptr;  // [R, H, Q]
};

/// out[r, q, h, e] = inside_scale inside[r, h, q, e] + seen_scale seen[r, g, q, (h, e)] + D x, the
/// scales [R, Q, H]: the outputs, or the gradient of x.
struct SsdCombine {
  SsdSlab slab;
  Element element = Element::kFloat, x_element = Element::kFloat;
  void* out = nullptr;
  const float *inside = nullptr, *inside_scale = nullptr;  // inside_scale: or null
  const float *seen = nullptr, *seen_scale = nullptr;
  const float* D = nullptr;  // [R, H, E] or null, then x too
  const void* x = nullptr;   // [R, Q, H, E]
  int64_t x_chunk = 0, x_row = 0, x_head = 0;
};

/// Sequences of equal length: sums [B, steps S, G, N, H/G, E] become what enters each chunk (from
/// the end: what leaves it), state = decay state + sum; decay [B, steps S, H].
struct SsdStates {
  int64_t batch = 0, steps = 0, sequences = 0, heads = 0, groups = 1, states = 0, channels = 0;
  bool forward = true;
  float* sums = nullptr;
  const float* decay = nullptr;
  float* state = nullptr;  // [B, S, G, N, H/G, E]: before the walk, and behind it
};

/// Launch on `stream` (a cudaStream_t). Return a CUDA error's text, or null.
const char* ssd_mixing(const SsdMixing& call, void* stream);
const char* ssd_combine(const SsdCombine& call, void* stream);
const char* ssd_pass_states(const SsdStates& call, void* stream);

}  // namespace serpentine::cuda
