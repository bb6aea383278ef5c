// The published calls of mamba_ssm's state space duality, over the library's own.
//
// B batch, L length, H heads, E channels a head (headdim), G groups, N states (dstate).
#pragma once

#include "core/ops/ssd.h"

namespace serpentine {

struct ChunkScanArgs {
  at::Tensor x;               // [B, L, H, E]; fp32, fp64, bf16 or fp16
  at::Tensor dt;              // [B, L, H]
  at::Tensor A;               // [H]
  at::Tensor B, C;            // [B, L, G, N]
  at::Tensor D;               // [H] or [H, E], may be undefined
  at::Tensor z;               // [B, L, H, E], may be undefined: the output is multiplied by silu(z)
  at::Tensor dt_bias;         // [H], may be undefined
  at::Tensor initial_states;  // [B, H, E, N], may be undefined
  at::Tensor seq_idx;     // integer [B, L], may be undefined: each run of equal values starts from
                          // nothing
  at::Tensor cu_seqlens;  // integer [S + 1], may be undefined: where packed sequences end, B = 1
  bool dt_softplus = false;
  double dt_min = 0, dt_max = std::numeric_limits<double>::infinity();  // dt_limit
  int64_t chunk_size = 0;                                               // 0: chosen
};

struct ChunkScanResult {
  at::Tensor out;            // [B, L, H, E], x's dtype
  at::Tensor final_states;   // [B, H, E, N] of each row's last sequence
  at::Tensor varlen_states;  // [S, H, E, N] of the sequences of cu_seqlens, undefined without
};

/// mamba_chunk_scan_combined. Differs from the original: any length and width, 64-bit offsets,
/// initial states beside seq_idx belong to each row's first sequence, varlen states have gradients.
ChunkScanResult mamba_chunk_scan_combined(const ChunkScanArgs& args);

/// ssd_minimal_discrete: X is dt x [B, L, H, E], A is dt A [B, L, H], B and C are [B, L, H, N];
/// initial_states [B, 1, H, E, N] may be undefined. Returns y and the final state [B, H, E, N].
std::pair<at::Tensor, at::Tensor> ssd_minimal_discrete(const at::Tensor& X, const at::Tensor& A,
                                                       const at::Tensor& B, const at::Tensor& C,
                                                       int64_t block_len,
                                                       const at::Tensor& initial_states = {});

}  // namespace serpentine
