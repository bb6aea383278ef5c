// The decoder of Point Cloud Mamba: features of coarse levels carried back to every point, with a
// summary of all levels.
//
// Zhang et al., arXiv 2403.00762; feature propagation of PointNet++, Qi et al., arXiv 1706.02413.
// Keys as SkyworkAI/PointCloudMamba's PointMambaDecoder and PointMambaPartDecoder.
#pragma once

#include <string>
#include <vector>

#include "pointcloud/pcm_encoder.h"

namespace serpentine {

struct PcmDecoderOptions {
  std::vector<int64_t> channels = {384, 192, 192, 192};  // of each propagation, the coarsest first
  std::vector<int64_t> blocks = {1, 1, 1, 1};            // residual layers after each
  std::vector<int64_t> mamba_blocks = {0, 0, 0, 0};      // Mamba layers after each
  std::vector<std::string> orders;  // of those layers; "null": as the points lie
  std::string activation = "relu";
  int64_t gmp_dim = 64;        // channels of the summary, and of each level's part
  int64_t cls_dim = 64;        // channels of the shape's class
  int64_t shape_classes = 16;  // 0: the shape's class is not an input

  void fields(Fields& f);
  void check(int64_t levels) const;
};

class PcmDecoderImpl : public torch::nn::Module {
 public:
  PcmDecoderImpl(PcmDecoderOptions options, const PcmEncoderOptions& encoder);

  /// levels: as the encoder gives them. shape_class: int64 [B], undefined unless shape_classes > 0.
  /// Returns features of the first level's points, [B, N, out_channels()].
  torch::Tensor forward(const std::vector<PointLevel>& levels, const torch::Tensor& shape_class);

  int64_t out_channels() const;

 private:
  struct Propagation {
    PointLayer fuse{nullptr};
    PointResiduals extraction{nullptr};
    std::vector<Block> mamba;
  };
  torch::Tensor mix(Propagation& step, const torch::Tensor& points, torch::Tensor x, size_t& layer,
                    std::string& order);

  PcmDecoderOptions options_;
  std::vector<Propagation> steps_;
  std::vector<PointLayer> level_maps_, class_maps_;
  PointLayer summary_{nullptr};
};
TORCH_MODULE(PcmDecoder);

}  // namespace serpentine
