// Pre-norm Mamba layers in a row, without a separate residual stream: PointMamba's MixerModel.
#pragma once

#include <functional>
#include <vector>

#include <torch/nn/module.h>

#include "core/nn/mamba.h"
#include "core/nn/norm.h"

namespace serpentine {

struct MambaStackOptions {
  MambaOptions mamba;             // d_model: channels of a token
  std::vector<double> drop_path;  // of each layer, which also tells their number
  double dropout = 0;             // after each layer
  bool rms_norm = false;
};

/// x + drop_path(Mamba(norm(x))), layer by layer, then a norm. Keys `layers.<i>.{mixer,norm}.*`,
/// `norm_f.*`. Liang et al., arXiv 2402.10739, section 3.3.
class MambaStackImpl : public torch::nn::Module {
 public:
  explicit MambaStackImpl(const MambaStackOptions& options);

  /// x: [B, T, d_model] -> [B, T, d_model].
  torch::Tensor forward(torch::Tensor x, const ScanOrder& order);

  /// Called with "layer<i>.mixer" and "after_layer<i>".
  std::function<void(const std::string& name, const torch::Tensor& tensor)> on_record;

 private:
  struct Layer {
    Mamba mixer{nullptr};
    Norm norm{nullptr};
  };
  MambaStackOptions options_;
  std::vector<Layer> layers_;
  Norm norm_f_{nullptr};
};
TORCH_MODULE(MambaStack);

}  // namespace serpentine
