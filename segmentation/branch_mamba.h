// Mamba with a set of convolution, projections and state matrices for each branch of a scan order.
//
// Gu & Dao, arXiv 2312.00752; with two branches Vim's mixer (arXiv 2401.09417), with three
// SegMamba's (arXiv 2401.13560), whose outputs are summed. Keys: those of Mamba; the second branch
// adds conv1d_b, x_proj_b, dt_proj_b, A_b_log and D_b, the third _s, further ones _3, _4, ...
#pragma once

#include <vector>

#include "core/nn/mamba_branch.h"

namespace serpentine {

class BranchMambaImpl : public torch::nn::Module {
 public:
  BranchMambaImpl(const MambaOptions& options, int64_t branches);
  void reset();

  /// x: [B, T, d_model] -> the same. Every branch of `order` has the same number of positions.
  torch::Tensor forward(const torch::Tensor& x, const ScanOrder& order);

  MambaOptions options;
  torch::nn::Linear in_proj{nullptr}, out_proj{nullptr};

 private:
  std::vector<MambaBranch> branches_;
};
TORCH_MODULE(BranchMamba);

}  // namespace serpentine
