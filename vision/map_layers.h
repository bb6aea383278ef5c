// Layers over feature maps whose channels are the last axis: [B, H, W, C].
//
// A map is then a table of tokens, which the scan and the projections read as it lies; a
// convolution sees it through a permuted view (channels-last memory), which copies nothing.
#pragma once

#include <memory>
#include <string>

#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>

namespace serpentine {

inline torch::Tensor channels_first(const torch::Tensor& map) { return map.permute({0, 3, 1, 2}); }
inline torch::Tensor channels_last(const torch::Tensor& map) { return map.permute({0, 2, 3, 1}); }

/// A convolution of a map: [B, H, W, C] -> [B, H', W', C'].
inline torch::Tensor convolve(torch::nn::Conv2d& conv, const torch::Tensor& map) {
  return channels_last(conv->forward(channels_first(map)));
}

/// `ln`, `ln2d` (both over channels) or `bn`; the modules hold parameters under torch's names.
class MapNorm {
 public:
  MapNorm() = default;
  MapNorm(const std::string& kind, int64_t channels, double eps = 1e-5);
  torch::Tensor forward(const torch::Tensor& map) const;  // [B, H, W, C] -> [B, H, W, C]
  const std::shared_ptr<torch::nn::Module>& module() const { return module_; }

 private:
  std::shared_ptr<torch::nn::Module> module_;
  bool batch_ = false;
};

/// silu, gelu (exact), relu or sigmoid.
torch::Tensor activate(const std::string& name, const torch::Tensor& x);

/// fc2(act(fc1 x)); gated: fc2(x act(z)), [x | z] = fc1. Keys fc1, fc2.
class MapMlpImpl : public torch::nn::Module {
 public:
  MapMlpImpl(int64_t channels, int64_t hidden, const std::string& act, bool gated = false,
             double dropout = 0);
  torch::Tensor forward(const torch::Tensor& x);  // [..., C] -> [..., C]

  torch::nn::Linear fc1{nullptr}, fc2{nullptr};

 private:
  std::string act_;
  bool gated_;
  double dropout_;
};
TORCH_MODULE(MapMlp);

/// Swin's merging of 2 x 2 neighbours: (0, 0), (1, 0), (0, 1), (1, 1) as (row, column), a norm, a
/// projection to `out`. Keys norm, reduction.
class PatchMergingImpl : public torch::nn::Module {
 public:
  /// Odd maps get a row or column of zeros behind; `crop`: lose their last one (MedMamba).
  PatchMergingImpl(int64_t channels, int64_t out, const std::string& norm = "ln",
                   bool crop = false);
  torch::Tensor forward(const torch::Tensor& map);  // [B, H, W, C] -> [B, ~H/2, ~W/2, out]

 private:
  MapNorm norm_;
  torch::nn::Linear reduction_{nullptr};
  bool crop_;
};
TORCH_MODULE(PatchMerging);

/// Swin's initialisation of a model: linear layers truncated normal 0.02 and 0, norms 1 and 0.
void init_swin_style(torch::nn::Module& model);

/// A learned table [1, C, h, w] at another size: bicubic, corners not aligned.
torch::Tensor resized_embedding(const torch::Tensor& table, int64_t height, int64_t width);

}  // namespace serpentine
