// Mamba with a second set of convolution, projections and state matrices for the other way.
//
// Zhu et al., "Vision Mamba", arXiv 2401.09417, Algorithm 1 (over reversed tokens, as Point Cloud
// Mamba has it); Han et al., "Mamba3D", arXiv 2404.14966, section 3.3 (over reversed channels).
// Keys: those of Mamba, and conv1d_b, x_proj_b, dt_proj_b, A_b_log, D_b.
#pragma once

#include "core/nn/mamba_branch.h"

namespace serpentine {

enum class SecondWay {
  kTokens,    // the same order from its end; "v2" in Vim and Point Cloud Mamba
  kChannels,  // the same order, channels of [x; z] reversed, so that x and the gate change places;
              // "v4" in Mamba3D
  kUnused     // Mamba3D's other types own the second set and never use it
};

/// The ways are summed behind their gates and share in_proj and out_proj. One branch of `order`,
/// every token visited once.
class TwoWayMambaImpl : public Mixer {
 public:
  TwoWayMambaImpl(const MambaOptions& options, SecondWay way);

  /// What Vim's constructor does, which leaves dt_proj_b as a linear layer's default.
  void reset() override;

  torch::Tensor forward(const torch::Tensor& x, const ScanOrder& order) override;

  // a second way reads what is still to come, so there is no step by step: these throw
  torch::Tensor prefill(const torch::Tensor& x, MixerState& state) override;
  torch::Tensor step(const torch::Tensor& x, MixerState& state) override;
  MixerState empty_state(int64_t batch) const override;

  MambaOptions options;
  SecondWay way;
  torch::nn::Linear in_proj{nullptr}, out_proj{nullptr};

 private:
  torch::Tensor scan(const torch::Tensor& x, const ScanOrder& order,
                     at::ArrayRef<const MambaBranch*> branches) const;
  MambaBranch ahead_, other_;
};
TORCH_MODULE(TwoWayMamba);

}  // namespace serpentine
