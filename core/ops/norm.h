// Residual addition followed by a normalisation over channels, with the dtype rules of Mamba's
// fused kernel.
//
//   s = x + residual;  RMS: y = s / sqrt(mean(s^2) + eps) * weight + bias;  layer: on s - mean(s),
//   population variance.
// Zhang & Sennrich, arXiv 1910.07467; Ba et al., arXiv 1607.06450; state-spaces/mamba
// ops/triton/layer_norm.
#pragma once

#include <ATen/core/Tensor.h>

namespace serpentine {

enum class NormKind { kRms, kLayer };

struct AddNormArgs {
  at::Tensor x;         // [..., D]
  at::Tensor residual;  // [..., D], may be undefined (the first layer)
  at::Tensor weight;    // [D]
  at::Tensor bias;      // [D], may be undefined
  NormKind kind = NormKind::kRms;
  double eps = 1e-5;
  bool residual_in_fp32 = false;
};

struct AddNormResult {
  at::Tensor y;         // [..., D]; x's dtype
  at::Tensor residual;  // [..., D]: the sum, for the next layer
};

struct GatedNormArgs {
  at::Tensor x;       // [..., D]
  at::Tensor gate;    // [..., D], may be undefined (no gate)
  at::Tensor weight;  // [D]
  at::Tensor bias;    // [D], may be undefined
  double eps = 1e-5;
  int64_t group = 0;         // channels that are normalised together, a divisor of D; 0: all
  bool before_gate = false;  // norm(x) silu(gate); false: norm(x silu(gate))
};

/// The RMS norm behind Mamba-2's and Hydra's scans (mamba_ssm ops/triton/layernorm_gated), fp32
/// (fp64 if an operand is) inside. [..., D], x's dtype. Differentiable.
at::Tensor gated_rms_norm(const GatedNormArgs& args);

/// Sum and statistics are fp32 (fp64 if an operand is), and the norm sees the unrounded sum. The
/// sum leaves in the incoming residual's dtype; without one in fp32 if residual_in_fp32, else in
/// x's dtype. Differentiable.
AddNormResult add_norm(const AddNormArgs& args);

}  // namespace serpentine
