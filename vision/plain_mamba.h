// PlainMamba's layer: a scan along four snakes, told by each step's direction.
//
// Yang et al., "PlainMamba", arXiv 2403.17695, Figures 2 and 3. Keys and quirks as
// ChenhongyiYang/PlainMamba: only what is scanned follows the route; delta, B and C of step i are
// those of token i, and delta's bias is added twice.
// differs: the whole model's stem is one convolution; the authors' may have several.
// B batch, T = H W tokens, C channels, D inner channels, N states.
#pragma once

#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include "core/nn/mamba.h"
#include "core/nn/norm.h"
#include "vision/image_scan.h"
#include "vision/map_layers.h"

namespace serpentine {

struct PlainMambaOptions {
  int64_t dim = 192, d_state = 16, dt_rank = 0, conv_size = 7;  // rank 0: ceil(dim / 16)
  double expand = 2;
  bool bias = true, conv_bias = true, rms_norm = false;
  bool with_dwconv = false;  // depthwise convolution, batch norm and GELU behind the layer
  bool routed_rows = false;  // delta, B and C follow the route too (not as published)
  double norm_eps = 1e-5, drop_path = 0;
  int64_t inner() const { return static_cast<int64_t>(expand * static_cast<double>(dim)); }
  int64_t rank() const { return dt_rank > 0 ? dt_rank : (dim + 15) / 16; }
};

/// The move that led to each position: int64 [P], 0 start (or no neighbour), 1 right, 2 left, 3 up,
/// 4 down. Waits for no GPU.
at::Tensor moves_of(const ScanOrder& order, int64_t width);

/// Keys in_proj, conv2d, x_proj, dt_proj, A_log, D, direction_Bs, out_proj.
class SnakeMixerImpl : public torch::nn::Module {
 public:
  explicit SnakeMixerImpl(const PlainMambaOptions& options);
  /// x: [B, H, W, C] -> the same; `order` has one branch.
  torch::Tensor forward(const torch::Tensor& x, const ScanOrder& order);

 private:
  PlainMambaOptions options_;
  torch::nn::Linear in_proj_{nullptr}, x_proj_{nullptr}, dt_proj_{nullptr}, out_proj_{nullptr};
  torch::nn::Conv2d conv2d_{nullptr};
  torch::Tensor A_log_, D_, direction_Bs_;  // [D, N], [D], [5, N]
};
TORCH_MODULE(SnakeMixer);

/// x + mixer(norm x), then perhaps the convolution. Keys norm, mamba, dw.0, dw.1.
class PlainMambaLayerImpl : public torch::nn::Module {
 public:
  explicit PlainMambaLayerImpl(const PlainMambaOptions& options);
  torch::Tensor forward(const torch::Tensor& x, const ScanOrder& order);

  Trace* trace = nullptr;  // mamba_in, mamba_out

 private:
  PlainMambaOptions options_;
  Norm norm_{nullptr};
  SnakeMixer mamba_{nullptr};
  torch::nn::Conv2d conv_{nullptr};
  MapNorm conv_norm_;
};
TORCH_MODULE(PlainMambaLayer);

}  // namespace serpentine
