// Vim's mixer: a Mamba whose inner part runs along each branch of an order, with parameters for
// each, behind one gate.
//
// Zhu et al., "Vision Mamba", arXiv 2401.09417, Algorithm 1. Keys as hustvl/Vim's Mamba: branch 0
// as in Mamba, branch 1 with _b (conv1d_b, x_proj_b, dt_proj_b, A_b_log, D_b), branch k from 2 on
// with _k. B batch, T tokens, P positions, K branches, D inner channels, N states.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/nn/mamba_branch.h"
#include "vision/channel_gate.h"

namespace serpentine {

enum class Directions {
  kOwn,    // every branch has its own convolution, projections, A and D ("v2"; one branch: "none")
  kShared  // one branch and its reverse, which shares all but A ("v1")
};

enum class BranchNames {
  kVim,      // as above
  kNumbered  // LocalMamba's: conv1d_0, x_proj_0, dt_proj_0, A_log_0, D_0, ...
};

struct RoutedMambaOptions {
  MambaOptions mamba;
  Directions directions = Directions::kOwn;
  bool mean = true;           // of the branches, else their sum; kShared always sums
  bool channel_gate = false;  // of each branch's output before the sum, shared by all (key attn)
  BranchNames naming = BranchNames::kVim;
  double layer_scale = 0;  // initial scale of each output channel (key gamma); 0: none
};

class RoutedMambaImpl : public Mixer {
 public:
  /// `branches`: of the orders it will be given; kShared: 1.
  RoutedMambaImpl(const RoutedMambaOptions& options, int64_t branches);
  void reset() override;  // Vim's, whose later dt biases start at zero

  torch::Tensor forward(const torch::Tensor& x, const ScanOrder& order) override;

  // branches may read what is still to come, so there is no step by step: these throw
  torch::Tensor prefill(const torch::Tensor& x, MixerState& state) override;
  torch::Tensor step(const torch::Tensor& x, MixerState& state) override;
  MixerState empty_state(int64_t batch) const override;

  RoutedMambaOptions options;

  /// With a channel gate: what becomes of branch k's output [B, T, D] before it. May be empty.
  std::function<torch::Tensor(const torch::Tensor& y, int64_t k)> rearrange;

  torch::nn::Linear in_proj{nullptr}, out_proj{nullptr};

 private:
  MambaBranch add_branch(int64_t number);
  torch::Tensor scan(const torch::Tensor& x, const ScanOrder& order, Merge merge) const;
  torch::Tensor gated_sum(const torch::Tensor& y, const torch::Tensor& gate);

  std::vector<MambaBranch> branches_;
  torch::Tensor A_b_log_, gamma_;
  ChannelGate attn_{nullptr};
};
TORCH_MODULE(RoutedMamba);

}  // namespace serpentine
