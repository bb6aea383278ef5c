// Mamba's mixer as one differentiable function: projection in, convolution, selective scan along
// every branch of an order, gate, projection out. Between the passes nothing stays but the input
// and the rows of the steps: the backward pass makes the rest again.
//
//   (x, z) = h W_in;  u_k = silu(conv_k(x));  (r, B, C)_k = u_k W_x,k;  delta_k = r_k W_dt,k
//   y = out_proj(silu(z) merge_k scan(u_k, delta_k, -exp(A_log_k), B_k, C_k, D_k))
// Gu & Dao, "Mamba", arXiv 2312.00752, Figure 3 and section 3.3.2 (recomputation); several branches
// behind one gate: Zhu et al., arXiv 2401.09417, Algorithm 1.
// B batch, T tokens, P positions, K branches, C channels in, D inner channels, N states, R rank,
// E channels out, W width.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "core/scan_order.h"

namespace serpentine {

/// Floating; the projections are computed in h's type, or autocast's; A, D, the bias of delta and
/// the states in float32 (float64 for a float64 h).
struct MambaMixerArgs {
  at::Tensor h;                   // [B, T, C]
  at::Tensor in_proj, in_bias;    // [2 D, C]; [2 D], may be undefined
  at::Tensor conv, conv_bias;     // [K, D, W]; [K, D], may be undefined
  at::Tensor x_proj;              // [K, R + 2 N, D]
  at::Tensor dt_proj, dt_bias;    // [K, D, R]; [K, D]
  at::Tensor A_log, D;            // [K, D, N]; [K, D]
  at::Tensor out_proj, out_bias;  // [E, D]; [E], may be undefined
};

/// What stays for the backward pass beside h and the steps (r, B, C); the rest is made again.
enum class MixerKeep {
  kNothing,
  kScan,  // the scan's output and states: its walk is not repeated
  kAll
};

struct MambaMixerOptions {
  std::vector<int64_t> sizes;  // positions of each branch (branch_sizes); empty: all alike
  Merge merge = Merge::kSum;   // of the branches; not kConcat
  MixerKeep keep = MixerKeep::kNothing;
  // Groups of inner channels, made one after another; several keep nothing. 0: one, or with
  // nothing kept as many as hold what is made at once in bounds (mixer_groups).
  int64_t groups = 0;
  bool lean = false;  // several groups hold nothing from one walk over them to the next: least
                      // memory, more products
};

/// Groups for rows of `bytes` bytes a value, if nothing is kept: one up to half a GiB made at once,
/// two, then one more every 1.5 GiB, up to eight, none below 64 channels.
int64_t mixer_groups(int64_t tokens, int64_t positions, int64_t inner, int64_t bytes);

/// Whether device and moment allow it: not while a model is traced.
bool takes_mamba_mixer(const at::Tensor& h);
/// [B, T, E]. Differentiable once; deterministic.
at::Tensor mamba_mixer(const MambaMixerArgs& args, const ScanOrder& order,
                       const MambaMixerOptions& options);

}  // namespace serpentine
