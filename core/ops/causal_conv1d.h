// Depthwise causal convolution whose input is read through a scan order.
//
// out[p] = bias + sum_k weight[k] x[token at position p - (W - 1) + k], inside p's sequence; SiLU optional.
// B batch, T tokens, P positions, S sequences, K branches, D channels, W width.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/scan_order.h"

namespace serpentine {

struct CausalConv1dArgs {
  at::Tensor x;              // [B, T, D]; fp32, fp64, bf16 or fp16
  at::Tensor weight;         // [K, D, W], the newest sample at W - 1; W in 1..7
  at::Tensor bias;           // [K, D], may be undefined
  at::Tensor initial_state;  // [B, S, W - 1, D], the samples before each sequence, may be undefined (zeros)
  bool silu = false;
};

struct CausalConv1dResult {
  at::Tensor y;            // [B, P, D]
  at::Tensor final_state;  // [B, S, W - 1, D]: the last W - 1 samples, left-padded; undefined unless asked for
};

/// Differentiable in x, weight, bias and initial_state.
CausalConv1dResult causal_conv1d(const CausalConv1dArgs& args, const ScanOrder& order, bool want_final_state = false);

}  // namespace serpentine
