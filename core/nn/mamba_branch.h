// The inner part of a Mamba that runs along several branches of a scan order, each with parameters
// of its own behind a shared projection and gate: Vim's mixer (Zhu et al., arXiv 2401.09417,
// Algorithm 1) and those made after it.
#pragma once

#include <string>

#include "core/nn/mamba.h"
#include "core/ops/selective_scan.h"

namespace serpentine {

/// One branch's parameters. D inner channels, N states.
struct MambaBranch {
  torch::nn::Conv1d conv{nullptr};
  torch::nn::Linear x_proj{nullptr}, dt_proj{nullptr};
  torch::Tensor A_log, D;  // [D, N], [D]

  /// Layers' defaults, the steps' too; A and D as Mamba's.
  void reset();
  /// Steps as Mamba's: the projection's weight, and a bias by which the initial steps are
  /// log-uniform between their bounds.
  void reset_steps(const MambaOptions& options);
};

/// Registers conv1d, x_proj, dt_proj and D of `owner` with a suffix, and A under its own name.
MambaBranch add_mamba_branch(torch::nn::Module& owner, const MambaOptions& options,
                             const std::string& suffix, const std::string& a_name);

/// Convolution and projections of x: [B, T, D] along `order`, branch after branch: what a selective
/// scan over the same order in rows of positions takes. sizes: the positions of each branch; empty:
/// all alike. A, D and the bias of delta stay float32 under autocast.
SelectiveScanArgs branch_scan_args(at::ArrayRef<const MambaBranch*> branches,
                                   const MambaOptions& options, const torch::Tensor& x,
                                   const ScanOrder& order, at::IntArrayRef sizes = {});

/// The whole mixer of `branches` behind one projection in, x: [B, T, d_model] -> [B, T, C], as one
/// function that keeps for the backward pass what the options say. takes_mamba_mixer(x) must hold.
torch::Tensor branch_mixer(at::ArrayRef<const MambaBranch*> branches, const MambaOptions& options,
                           const torch::nn::Linear& in_proj, const torch::nn::Linear& out_proj,
                           const torch::Tensor& x, const ScanOrder& order,
                           const MambaMixerOptions& passes);

}  // namespace serpentine
