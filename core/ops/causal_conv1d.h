// Depthwise causal convolution whose input is read through a scan order.
//
//   y[p] = act(bias + sum_k weight[k] x[position p - (W - 1) + k]), inside p's sequence
//
// act is the identity or SiLU.
// A pad reads zeros; before a sequence lie the rows of initial_state, or zeros.
// B batch, T tokens, P positions, S sequences, K branches, D channels, W width.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/scan_order.h"

namespace serpentine {

inline constexpr int64_t kMaxConvWidth = 7;

struct CausalConv1dArgs {
  at::Tensor x;              // [B, T, D]; fp32, fp64, bf16 or fp16; any strides
  at::Tensor weight;         // [K, D, W], the newest sample at W - 1; W in 1..7; any floating dtype
  at::Tensor bias;           // [K, D], may be undefined
  at::Tensor initial_state;  // [B, S, W - 1, D], the samples before each sequence, may be undefined
  bool silu = false;
};

struct CausalConv1dResult {
  at::Tensor y;            // [B, P, D]; x's dtype
  at::Tensor final_state;  // [B, S, W - 1, D]: the last W - 1 samples; undefined unless asked for
};

/// Differentiable in x, weight, bias and initial_state; sums are fp32 (fp64 for fp64 input). On a
/// CPU threaded and vectorised over D, with a deterministic backward; elsewhere the reference.
CausalConv1dResult causal_conv1d(const CausalConv1dArgs& args, const ScanOrder& order,
                                 bool want_final_state = false);

/// The definition, in plain tensor operations: any device.
CausalConv1dResult causal_conv1d_reference(const CausalConv1dArgs& args, const ScanOrder& order,
                                           bool want_final_state = false);

}  // namespace serpentine
