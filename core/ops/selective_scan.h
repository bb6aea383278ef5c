// The selective scan of Mamba, read and written through a scan order.
//
// Gu & Dao, "Mamba", arXiv 2312.00752, Algorithm 2. Per branch k, channel d and state n:
//   dt = softplus(delta + delta_bias);  h = exp(dt A) h + dt B u;  y = sum_n C h + D u.
// B batch, T tokens, P positions, S sequences, K branches, D channels, N states.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/scan_order.h"

namespace serpentine {

enum class Rows { kToken, kPosition };  // operands hold one row a token, or one row a position

struct SelectiveScanArgs {
  at::Tensor u;              // [B, T, D] or [B, P, D]; fp32, fp64, bf16 or fp16
  at::Tensor delta;          // [B, T, K, D] or [B, P, D]; u's dtype
  at::Tensor A;              // float32 (float64 if u is) [K, D, N], real
  at::Tensor B, C;           // [B, T, K, N] or [B, P, N]; u's dtype
  at::Tensor D, delta_bias;  // float32 [K, D], may be undefined
  at::Tensor initial_state;  // float32 [B, S, D, N], may be undefined (zeros); differentiable
  bool delta_softplus = true;
};

struct SelectiveScanResult {
  at::Tensor y;  // [B, T, D] (sum, mean) or [B, T, V * D] (concat: visit v at channels [v D, (v +
                 // 1) D)); u's dtype
  at::Tensor final_state;  // float32 [B, S, D, N], differentiable; undefined unless asked for
};

/// Differentiable, deterministic; memory of forward and backward is O(B P D), never O(B P D N).
SelectiveScanResult selective_scan(const SelectiveScanArgs& args, const ScanOrder& order,
                                   Rows rows = Rows::kToken, Merge merge = Merge::kSum,
                                   bool want_final_state = false);

/// The definition: one loop over positions in plain tensor operations; any device, any order,
/// autograd.
SelectiveScanResult selective_scan_reference(const SelectiveScanArgs& args, const ScanOrder& order,
                                             Rows rows = Rows::kToken, Merge merge = Merge::kSum,
                                             bool want_final_state = false);

}  // namespace serpentine
