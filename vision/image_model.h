// What every image classifier offers: features and head apart, and maps for dense tasks.
//
// B images of H x W pixels and C channels; any size that the model's layers leave a pixel of.
#pragma once

#include <string>
#include <vector>

#include "core/config.h"
#include "core/io/state_dict.h"
#include "core/train/task.h"

namespace serpentine {

/// The options of every image model. `size` names a published configuration; each model reads it
/// before its own fields, so that a YAML may start from a size and change single values.
struct ImageModelOptions {
  int64_t classes = 1000;
  int64_t channels = 3;
  bool recompute = false;           // gradient checkpointing of each block
  std::vector<int64_t> image_size;  // [side] or [H, W]; empty: 224
  void fields(Fields& f);
  int64_t height() const { return image_size.empty() ? 224 : image_size.front(); }
  int64_t width() const { return image_size.empty() ? 224 : image_size.back(); }
};

class ImageModel : public Model {
 public:
  /// [B, classes] logits of batch.input [B, C, H, W]. Leaves the trace `features`.
  torch::Tensor forward(const Batch& batch) override {
    const auto features = forward_features(batch.input);
    leave_trace("features", features);
    return forward_head(features);
  }

  /// [B, C, H, W] -> [B, num_features()]: what the head reads.
  virtual torch::Tensor forward_features(const torch::Tensor& images) = 0;
  /// [B, num_features()] -> [B, classes].
  virtual torch::Tensor forward_head(const torch::Tensor& features) = 0;
  virtual int64_t num_features() const = 0;

  /// Maps for dense tasks, the finest first: [B, map_channels()[i], h_i, w_i].
  virtual std::vector<torch::Tensor> forward_maps(const torch::Tensor& images) = 0;
  virtual std::vector<int64_t> map_channels() const = 0;

  /// Weights of other releases, or for other image sizes, under this model's names and shapes;
  /// what has no counterpart stays as it is.
  virtual StateDict adapt(StateDict weights) const { return weights; }
};

}  // namespace serpentine
