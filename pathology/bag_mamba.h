// A Mamba whose branches share the projections in and out: one for each traversal of the tiles.
//
// Yang et al., "MambaMIL", arXiv 2403.06800; the shared projections as in Vision Mamba (arXiv
// 2401.09417), the branches summed, not averaged.
#pragma once

#include "core/nn/mamba_branch.h"

namespace serpentine {

/// Keys of a branch: none, `_b`, `_c`, ... behind conv1d, x_proj, dt_proj and D; A_log, A_b_log.
class BagMambaImpl : public torch::nn::Module {
 public:
  BagMambaImpl(const MambaOptions& options, int64_t branches);

  /// x: [B, T, d_model] -> the same, through an order of as many branches. parts > 1: the inner
  /// channels are computed in that many groups, each again in the backward pass; only the steps'
  /// projections [B, P, R + 2 N] and the rows in and out are kept.
  torch::Tensor forward(const torch::Tensor& x, const ScanOrder& order, int64_t parts = 1);

  /// Bytes of a tile that training keeps while this layer is at work, in one piece.
  int64_t bytes_of_tile() const;
  /// Numbers of a tile's steps before their last projection, of all branches; kept in parts too.
  int64_t steps_of_tile() const;

  MambaOptions options;

 private:
  torch::nn::Linear in_proj_{nullptr}, out_proj_{nullptr};
  std::vector<MambaBranch> branches_;
};
TORCH_MODULE(BagMamba);

}  // namespace serpentine
