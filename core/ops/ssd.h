// Mamba-2's state space duality: a scan with one decay a head, by matrix products over chunks.
//
// Dao & Gu, "Transformers are SSMs", arXiv 2405.21060, sections 5 and 6. Per branch k and head h:
//   dt = clamp(softplus(dt + dt_bias));  S = exp(dt A) S + dt x B^T;  y = S C + D x.
// B batch, T tokens, P positions, S sequences, K branches, H heads, E channels a head, G groups,
// N states. Wide is float32, or float64 if x is.
#pragma once

#include <limits>

#include <ATen/core/Tensor.h>

#include "core/ops/selective_scan.h"
#include "core/scan_order.h"

namespace serpentine {

struct SsdArgs {
  at::Tensor x;              // [B, T, H, E] or [B, P, H, E]; fp32, fp64, bf16 or fp16
  at::Tensor dt;             // [B, T, K, H] or [B, P, H]; x's dtype or the wide one
  at::Tensor A;              // wide [K, H]
  at::Tensor B, C;           // [B, T, K, G, N] or [B, P, G, N]; x's dtype; head h has group h G / H
  at::Tensor D;              // wide, [K, H] or [K, H, E], may be undefined
  at::Tensor dt_bias;        // wide, [K, H], may be undefined
  at::Tensor initial_state;  // wide, [B, S, H, E, N], may be undefined (zeros); differentiable
  at::Tensor log_decay;      // wide [B, T, K, H] or [B, P, H], instead of A: S = exp(log_decay) S +
                             // dt x B^T, where dt is whatever the input is weighted with
  bool dt_softplus = true;
  double dt_min = 0, dt_max = std::numeric_limits<double>::infinity();  // limits behind softplus
  int64_t chunk = 0;  // most positions a chunk; 0: chosen by N. Changes roundings only
};

struct SsdResult {
  at::Tensor y;            // [B, T, H, E] (sum, mean) or [B, T, V H, E] (concat); x's dtype
  at::Tensor final_state;  // wide, [B, S, H, E, N], differentiable; undefined unless asked for
};

/// Differentiable, deterministic, autocast safe. Sums are wide; on a GPU the operands of the
/// matrix products keep a 16-bit type of x. The backward pass recomputes all but one state a chunk:
/// memory of forward and backward is O(B P H E) while chunks are at least N long, as chosen ones
/// are.
SsdResult ssd(const SsdArgs& args, const ScanOrder& order, Rows rows = Rows::kToken,
              Merge merge = Merge::kSum, bool want_final_state = false);

/// The definition: one loop over positions in plain tensor operations; any device, any order,
/// autograd.
SsdResult ssd_reference(const SsdArgs& args, const ScanOrder& order, Rows rows = Rows::kToken,
                        Merge merge = Merge::kSum, bool want_final_state = false);

}  // namespace serpentine
