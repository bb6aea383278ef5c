// VMamba's residual block: x + SS2D(norm x), then x + MLP(norm x).
//
// Liu et al., "VMamba", arXiv 2401.10166, Figure 3d. Keys norm, op, norm2, mlp; those of the first
// release (VM-UNet, MedMamba) are ln_1 and self_attention.
#pragma once

#include <string>

#include "vision/ss2d.h"

namespace serpentine {

struct VssBlockOptions {
  Ss2dOptions ssm;       // its d_model is the block's
  double mlp_ratio = 4;  // 0: no MLP
  double mlp_dropout = 0;
  bool gmlp = false;
  std::string mlp_act = "gelu";
  std::string norm_layer = "ln";  // ln, ln2d or bn
  double norm_eps = 1e-5;
  double drop_path = 0;      // probability that a sample skips a branch
  bool first_names = false;  // ln_1 and self_attention
};

class VssBlockImpl : public torch::nn::Module {
 public:
  explicit VssBlockImpl(const VssBlockOptions& options);
  /// [B, H, W, C] -> [B, H, W, C]; any grid.
  torch::Tensor forward(const torch::Tensor& map, const ScanContext& context = {});

  Trace* trace = nullptr;  // op_in, op_out, op.out_norm

 private:
  VssBlockOptions options_;
  MapNorm norm_, norm2_;
  Ss2d op_{nullptr};
  MapMlp mlp_{nullptr};
};
TORCH_MODULE(VssBlock);

/// linspace(0, most, count): the drop path of each block of a model.
std::vector<double> drop_path_rates(double most, int64_t count);

}  // namespace serpentine
