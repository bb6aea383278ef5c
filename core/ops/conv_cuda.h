// What the CUDA kernels of the causal convolution know: plain memory, no tensors.
#pragma once

#include "core/ops/scan_cuda.h"

namespace serpentine::cuda {

/// Every array is dense unless it is a RowsView; R is float, or double when the rows are.
struct ConvCall {
  ScanCall walk;  // element, batch, positions, channels, sequences, branches, tokens, offsets,
                  // branch and piece: the positions that a thread walks
  int64_t width = 1;
  bool silu = false;
  RowsView x, y;                 // y by position
  const void* weight = nullptr;  // R [K, W, D]
  const void* bias = nullptr;    // R [K, D] or null
  const void* before = nullptr;  // R [B, S, W - 1, D], the initial state, or null
  void* after = nullptr;         // R [B, S, W - 1, D], the final state, or null

  // the backward pass alone
  RowsView dy, dx;
  const void* dafter = nullptr;  // R [B, S, W - 1, D] or null
  void* dbefore = nullptr;       // R [B, S, W - 1, D] or null
  void* dweight = nullptr;       // R [B, slots, W + 1, D]; the last row is the bias's
};

/// The length of a run that suits the device, for walk.piece; every view must be set.
int64_t conv_run(const ConvCall& call, bool backward);

/// Launch on `stream` (a cudaStream_t). Return a CUDA error's text, or null.
const char* conv_forward(const ConvCall& call, void* stream);
const char* conv_backward(const ConvCall& call, void* stream);

}  // namespace serpentine::cuda
