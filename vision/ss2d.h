// SS2D: the selective scan of a map along several routes, with parameters for each.
//
// Liu et al., "VMamba", arXiv 2401.10166, Figure 3. Keys, variants and init as MzeroMiko/VMamba's
// classification models. B batch, T = H W tokens, K routes, D inner channels, N states, R rank.
#pragma once

#include <string>
#include <vector>

#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include "core/nn/mixer.h"
#include "vision/image_scan.h"
#include "vision/map_layers.h"

namespace serpentine {

/// What the letters behind a forward_type say: "v05_noz" = no gate. They must stand in the order
/// base, out-norm, _noz or _nozact, _oact, _no32.
struct Ss2dVariant {
  std::string routes = "cross";   // cross, unidi, bidi or cascade (rows, then columns)
  std::string out_norm = "norm";  // norm, none, dwconv3, cnorm, softmax or sigmoid
  bool gate = true, gate_activation = true, out_activation = false;
  bool vanilla = false;  // v0: its gate, activations and norm are fixed
  /// Throws for a name that the reference would fail on.
  static Ss2dVariant parse(const std::string& forward_type);
};

struct Ss2dOptions {
  int64_t d_model = 96;
  int64_t d_state = 16;  // N
  double ssm_ratio = 2;  // inner channels D = int(ratio * d_model)
  int64_t dt_rank = 0;   // R; 0: ceil(d_model / 16)
  int64_t d_conv = 3;    // side of the depthwise convolution; below 2: none
  bool conv_bias = true, bias = false;
  double dropout = 0;
  std::string act = "silu", forward_type = "v05", init = "v0";
  Config scan;            // empty: the routes of forward_type
  double rank_ratio = 0;  // scanned channels over d_model, if below ssm_ratio; 0: all inner ones
  int64_t scanned() const {
    const bool low = rank_ratio > 0 && rank_ratio < ssm_ratio;
    return low ? static_cast<int64_t>(rank_ratio * static_cast<double>(d_model)) : inner();
  }
  int64_t inner() const { return static_cast<int64_t>(ssm_ratio * static_cast<double>(d_model)); }
  int64_t rank() const { return dt_rank > 0 ? dt_rank : (d_model + 15) / 16; }
};

/// delta of every token and route: rows [B, T, K, R], weight [K, D, R] -> [B, T, K, D]. `dense`: as
/// one product with a block-diagonal matrix, K times the work (R is small), but its result lies as
/// the scan reads it, which a GPU otherwise has to copy.
torch::Tensor project_delta(const torch::Tensor& rows, const torch::Tensor& weight, bool dense);

/// The parameters of K scans, stacked: keys x_proj_weight [K, R + 2 N, D], dt_projs_weight
/// [K, D, R], dt_projs_bias [K, D], A_logs [K D, N], Ds [K D].
struct RouteParameters {
  torch::Tensor x_proj, dt_proj, dt_bias, A_logs, Ds;
  void register_in(torch::nn::Module& owner, int64_t routes, int64_t rank, int64_t states,
                   int64_t inner);
  void reset(const std::string& init);
  /// The sets of `count` routes from `first` on.
  RouteParameters some(int64_t first, int64_t count) const;
  /// u: [B, T, D] -> [B, T, D], the sum over the routes; kConcat: [B, T, K D].
  torch::Tensor scan(const torch::Tensor& u, const RoutedOrder& routed,
                     Merge merge = Merge::kSum) const;
};

class Ss2dImpl : public torch::nn::Module {
 public:
  explicit Ss2dImpl(const Ss2dOptions& options);
  /// [B, H, W, d_model] -> [B, H, W, d_model].
  torch::Tensor forward(const torch::Tensor& map, const ScanContext& context = {});

  Ss2dOptions options;
  Trace* trace = nullptr;  // in_proj_out, after_conv2d, out_norm_out

 private:
  torch::Tensor core(const torch::Tensor& map, const ScanContext& context);
  torch::Tensor cascade(const torch::Tensor& map, const ScanContext& context);
  torch::Tensor normalise(const torch::Tensor& map);

  Ss2dVariant variant_;
  ImageScan scan_;
  RouteParameters routes_;
  torch::nn::Linear in_proj_{nullptr}, out_proj_{nullptr}, out_rank_{nullptr};
  torch::nn::Conv2d in_rank_{nullptr}, conv2d_{nullptr}, norm_conv_{nullptr};
  MapNorm out_norm_;
};
TORCH_MODULE(Ss2d);

}  // namespace serpentine
