// Clouds as groups of near points, and groups as tokens: the front of PointMamba and Mamba3D.
//
// Yu et al., "Point-BERT", arXiv 2111.14819, section 3.1; Qi et al., "PointNet", arXiv 1612.00593.
#pragma once

#include <string>
#include <vector>

#include <torch/nn/modules/container/sequential.h>

#include "core/config.h"
#include "pointcloud/point_layers.h"

namespace serpentine {

struct PointGroups {
  torch::Tensor centres;  // [B, G, 3], farthest points as pointnet2_ops chooses them
  torch::Tensor members;  // [B, G, S, 3]: the nearest points, the nearest first, minus the centre
};

/// points: [B, N, 3] with N at least `groups` and `size`.
PointGroups group_points(const torch::Tensor& points, int64_t groups, int64_t size);

/// Options that both models share, under the published configs' names.
struct GroupedModelOptions {
  int64_t num_group = 64, group_size = 32;
  int64_t trans_dim = 384;                        // channels of a token
  int64_t depth = 12;                             // Mamba layers
  double drop_path = 0.1;                         // of the last layer; grows linearly
  std::vector<int64_t> widths = {128, 256, 512};  // of the group encoder; the first also of the
                                                  // positions' MLP, the second also of the head
  void fields(Fields& f);
  void check() const;
  double drop_path_of(int64_t layer, int64_t layers) const;
};

/// A small PointNet: two maps, each followed by a maximum over the group. Keys
/// `first_conv.{0,1,3}`, `second_conv.{0,1,3}`.
class GroupEncoderImpl : public torch::nn::Module {
 public:
  explicit GroupEncoderImpl(const GroupedModelOptions& options);
  torch::Tensor forward(const torch::Tensor& members);  // [B, G, S, 3] -> [B, G, C]

 private:
  struct Pair {
    torch::nn::Conv1d in{nullptr}, out{nullptr};
    torch::nn::BatchNorm1d norm{nullptr};
  };
  Pair make_pair(const char* name, int64_t in, int64_t inner, int64_t out);
  static torch::Tensor run(Pair& pair, const torch::Tensor& x);  // [B G, C, S]
  Pair first_, second_;
};
TORCH_MODULE(GroupEncoder);

/// Linear, activation, linear: [..., 3] -> [..., C]. Keys `0`, `2`. silu: else GELU.
torch::nn::Sequential position_embedding(const GroupedModelOptions& options, bool silu = false);

/// Keys `0 1 4 5 8`: [B, in] -> [B, classes].
torch::nn::Sequential cloud_head(int64_t in, int64_t classes, const GroupedModelOptions& options);

/// The published start of training: truncated normal of 0.02 for every linear map and convolution,
/// biases (those of the step sizes too) to 0.
void init_grouped_model(torch::nn::Module& root);

}  // namespace serpentine
