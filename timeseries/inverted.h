// Forecasters whose tokens are variates: the skeleton of iTransformer (Liu et al., arXiv
// 2310.06625, Figure 2).
//
// A variate's whole window is embedded as one token; layers mix the tokens; each target's token is
// projected to its future. S-Mamba and iTransformer differ in the mixer alone. Keys as in their
// code.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include "core/train/task.h"
#include "timeseries/variates.h"

namespace serpentine {

struct InvertedOptions : ForecastModelOptions {
  int64_t d_model = 512, d_ff = 512;  // width of a token, of the feed-forward layer
  int64_t e_layers = 2;
  double dropout = 0.1;
  std::string activation = "gelu";
  bool use_norm = true;  // centre and scale each window by itself
  void fields(Fields& f);
};

/// x = norm1(x + mix(x)); x = norm2(x + feed_forward(x)).
class InvertedLayer : public torch::nn::Module {
 public:
  explicit InvertedLayer(const InvertedOptions& options);

  /// x: [B, T, d_model] -> [B, T, d_model]. Mixes tokens; dropout of its output is its own
  /// business.
  virtual torch::Tensor mix(const torch::Tensor& x) = 0;

  /// [B, T, d_model] -> [B, keep, d_model]: what is per token is computed for the first `keep`
  /// tokens only.
  torch::Tensor forward(const torch::Tensor& x, int64_t keep);

  std::function<void(const std::string& name, const torch::Tensor& tensor)>
      on_record;  // for traces

 protected:
  void record(const std::string& part, const torch::Tensor& tensor) const {
    if (on_record) on_record(part, tensor);
  }

 private:
  bool relu_;
  torch::nn::Conv1d conv1{nullptr},
      conv2{nullptr};  // of width 1, so that keys fit; applied as linear layers
  torch::nn::LayerNorm norm1{nullptr}, norm2{nullptr};
  torch::nn::Dropout dropout{nullptr};
};

/// Tokens: N variates, then marks, extra, elapsed (all embedded alike), then known-future variates.
/// differs: missing steps are embedded too (`mask_embedding`, zero at first), only if `masked`.
class InvertedForecaster : public Model {
 public:
  using MakeLayer = std::function<std::shared_ptr<InvertedLayer>()>;
  InvertedForecaster(const char* name, const InvertedOptions& options, const MakeLayer& make_layer);

  torch::Tensor forward(const Batch& batch) override;  // [B, H, C] or [B, H, C, Q]

  /// [B, T, d_model]: the tokens before the layers. `x` is the input, normalised or not.
  torch::Tensor embed(const torch::Tensor& x, const Batch& batch);

  const char* const who;  // the model's name, for errors
  const InvertedOptions options;
  std::vector<std::shared_ptr<InvertedLayer>> layers;
  torch::nn::LayerNorm norm{nullptr};  // after the last layer

 private:
  void trace_layer(size_t index);
  torch::nn::Linear value_embedding_{nullptr}, mask_embedding_{nullptr}, future_embedding_{nullptr},
      projector_{nullptr};
  torch::nn::Dropout dropout_{nullptr};
};

}  // namespace serpentine
