// Layer norm and Mamba over the pixels of a map, or over its channels.
#pragma once

#include <memory>

#include <torch/nn/modules/normalization.h>

#include "scans/serialization.h"
#include "segmentation/branch_mamba.h"

namespace serpentine {

/// Options of the mixer and the serialization that networks share.
struct MapMambaOptions {
  int64_t d_state = 16, d_conv = 4;
  double expand = 2;
  Config scan;  // empty: line after line
  void fields(Fields& f);
};

/// What the strategies read of a map [B, C, H, W] or [B, C, D, H, W].
TokenLayout map_layout(const torch::Tensor& map);

/// The strategy of `config`, or `fallback` where it is empty.
std::shared_ptr<Serialization> map_serialization(const Config& config, const Config& fallback);

/// Without a residual. Keys norm.*, mamba.*. Runs in fp32 under autocast, as published.
class MapMambaImpl : public torch::nn::Module {
 public:
  /// d_model: channels of the map, or its pixels where channels are the tokens.
  MapMambaImpl(int64_t d_model, const MapMambaOptions& options,
               std::shared_ptr<Serialization> strategy, bool channel_tokens = false);
  torch::Tensor forward(const torch::Tensor& map);
  /// The same of rows that were normed already, and the norm: tokens [B, T, C].
  torch::Tensor mix(const torch::Tensor& tokens, const TokenLayout& layout);

  torch::nn::LayerNorm norm{nullptr};
  BranchMamba mamba{nullptr};

 private:
  std::shared_ptr<Serialization> strategy_;
  bool channel_tokens_;
};
TORCH_MODULE(MapMamba);

}  // namespace serpentine
