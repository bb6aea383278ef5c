// The encoder of Point Cloud Mamba: stages of grouping and bidirectional Mamba layers, each layer
// along an order of its own.
//
// Zhang et al., "Point Cloud Mamba", arXiv 2403.00762, Figure 2. Keys and init as
// SkyworkAI/PointCloudMamba.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>

#include "core/config.h"
#include "core/nn/block.h"
#include "pointcloud/local_grouper.h"
#include "pointcloud/two_way_mamba.h"

namespace serpentine {

struct PcmEncoderOptions {
  int64_t in_channels = 3;  // features a point; the coordinates are them when there are no others
  int64_t embed_dim = 192;
  std::vector<int64_t> dim_expansion = {1, 1, 2, 1};  // of a stage's width over the one before
  std::vector<int64_t> mamba_blocks = {1, 1, 2, 2}, pre_blocks = {1, 1, 1, 1},
                       pos_blocks = {0, 0, 0, 0};
  std::vector<int64_t> k_neighbors = {12, 12, 12, 12}, k_strides = {1, 1, 1, 1},
                       reducers = {1, 2, 2, 2};
  int64_t groups = 1;
  double res_expansion = 1;
  std::string activation = "relu", normalize = "anchor";
  bool bias = false, use_xyz = true;

  std::vector<std::string> orders = {"xyz", "xzy", "yxz", "yzx", "zxy", "zyx"};
  double grid_size = 0.02;
  bool published_order = false;
  bool use_order_prompt = true;
  int64_t prompts_per_order = 6;
  std::vector<std::string> prompt_rows;  // whose prompts follow whose; empty: as `orders` has them

  bool mamba_pos = true;
  std::string pos_type = "share", pos_proj = "linear";
  bool combine_pos = false, block_residual = true;
  bool rms_norm = true, residual_in_fp32 = true, bidirectional = true;
  double drop_path = 0.1;
  std::vector<int64_t> windows;  // tokens a window, a stage each; empty: none
  std::string pooling = "max";
  MambaOptions mamba;

  void fields(Fields& f);
  void check() const;
  int64_t stages() const { return static_cast<int64_t>(mamba_blocks.size()); }
  int64_t width(int64_t stage) const;  // channels of a stage; -1: of the embedding
};

/// Points with their features, in the sequence that the last layer's order gave them.
struct PointLevel {
  torch::Tensor points;    // [B, N, 3]
  torch::Tensor features;  // [B, N, C]
};

class PcmEncoderImpl : public torch::nn::Module {
 public:
  explicit PcmEncoderImpl(PcmEncoderOptions options);

  /// The input's embedding, then each stage's result, coarser and coarser. points: [B, N, 3];
  /// features: [B, N, C], undefined: the coordinates.
  std::vector<PointLevel> forward(const torch::Tensor& points, const torch::Tensor& features);

  /// One vector a cloud: [B, C].
  torch::Tensor pooled(const torch::Tensor& points, const torch::Tensor& features);

  const PcmEncoderOptions options;
  Trace* trace = nullptr;

 private:
  struct Cloud {
    torch::Tensor points, features, residual;  // rows; the residual may be undefined
    torch::Tensor walk;  // int64 [B, N]: the row at each position; undefined: as they lie
    std::string order = "original";
  };
  void add_positions();
  void add_points(int64_t stage, torch::nn::ModuleList& groupers, torch::nn::ModuleList& before,
                  torch::nn::ModuleList& after);
  void add_layers(int64_t stage, torch::nn::ModuleList& blocks, torch::nn::ModuleList& residuals);
  void run_stage(Cloud& cloud, int64_t stage);
  void run_layer(Cloud& cloud, int64_t stage, int64_t layer);
  void serialize(Cloud& cloud, const std::string& order) const;
  void drop_points(Cloud& cloud, int64_t kept) const;
  void put_in_sequence(Cloud& cloud) const;  // rows as the walk has them
  torch::Tensor position_term(const torch::Tensor& points, int64_t stage, int64_t number);
  torch::Tensor prompts(int64_t stage, const std::string& order);
  void record(const std::string& name, const torch::Tensor& tensor) const {
    if (trace) (*trace)[name] = tensor;
  }

  PointLayer embedding_{nullptr};
  torch::nn::Embedding order_prompt_{nullptr};
  std::vector<std::function<torch::Tensor(const torch::Tensor&)>> positions_;
  std::vector<torch::nn::Linear> prompt_proj_, residual_proj_;
  std::vector<LocalGrouper> groupers_;
  std::vector<Neighbourhood> pre_blocks_;
  std::vector<PointResiduals> pos_blocks_;
  std::vector<std::vector<Block>> mamba_;
};
TORCH_MODULE(PcmEncoder);

/// A block of Point Cloud Mamba, without its init over all layers.
Block pcm_block(int64_t channels, const PcmEncoderOptions& options, double drop_path);

/// out_proj of every mixer below: kaiming uniform over sqrt(layers); biases of linear maps to 0,
/// but for the first way's steps.
void init_pcm_mixers(torch::nn::Module& root, int64_t layers);

}  // namespace serpentine
