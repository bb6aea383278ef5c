// Fewer points, each with its neighbourhood's features: the geometric affine module of PointMLP.
//
// Ma et al., arXiv 2202.07123, section 3.2, as Point Cloud Mamba has it.
#pragma once

#include "pointcloud/point_layers.h"
#include "pointcloud/sampling.h"

namespace serpentine {

struct GrouperOptions {
  int64_t reducer = 2;  // keep one point of so many; 1 keeps all, where they are
  int64_t neighbours = 12;
  int64_t stride = 1;   // of the neighbours, by distance, take every so manyth
  bool use_xyz = true;  // the neighbours' coordinates are features too
  Distance distance = Distance::kPublished;
  std::string normalize = "anchor";  // by the centre point, by the neighbours' mean ("center"), ""
};

struct GroupedPoints {
  torch::Tensor points;    // [B, S, 3]
  torch::Tensor grouped;   // [B, S, k, 2 C + 3]: neighbours, then the centre's features; without
                           // use_xyz 2 C
  torch::Tensor residual;  // [B, S, C], undefined as before
};

class LocalGrouperImpl : public torch::nn::Module {
 public:
  LocalGrouperImpl(int64_t channels, GrouperOptions options);

  /// points: [B, N, 3], features: [B, N, C], residual: [B, N, C] or undefined. The points that are
  /// kept stay in their sequence.
  GroupedPoints forward(const torch::Tensor& points, const torch::Tensor& features,
                        const torch::Tensor& residual);

  int64_t out_channels() const;

  /// What forward gives, but for `grouped`: the points that are kept, and each one's neighbours.
  struct Chosen {
    GroupedPoints kept;
    torch::Tensor centres;  // [B, S, C]
    torch::Tensor near;     // int64 [B, S, k]
  };
  Chosen choose(const torch::Tensor& points, const torch::Tensor& features,
                const torch::Tensor& residual) const;

  /// A map of the grouped rows, weight [D, 2 C + 3], in two parts: that of each point [B, N, D],
  /// and what is added for each centre [B, S, D]. For an "anchor" only; no gradient.
  std::pair<torch::Tensor, torch::Tensor> mapped(const Chosen& chosen, const torch::Tensor& points,
                                                 const torch::Tensor& features,
                                                 const torch::Tensor& weight) const;
  bool is_anchored() const { return options_.normalize == "anchor"; }

 private:
  GrouperOptions options_;
  int64_t channels_;
  torch::Tensor affine_alpha_, affine_beta_;  // [1, 1, 1, C + 3], under the reference's names
};
TORCH_MODULE(LocalGrouper);

/// Layers on each neighbour, then the largest value over the neighbours. Keys `transfer.*`,
/// `operation.*`; without blocks no keys: the largest value alone.
class NeighbourhoodImpl : public torch::nn::Module {
 public:
  NeighbourhoodImpl(int64_t in, int64_t out, int64_t blocks, const PointResidualOptions& options);
  torch::Tensor forward(torch::Tensor grouped);  // [B, S, k, in] -> [B, S, out]

  /// The same from what a grouper takes, without the grouped rows; where `can_shorten` says so.
  GroupedPoints shortened(const LocalGrouperImpl& grouper, const torch::Tensor& points,
                          const torch::Tensor& features, const torch::Tensor& residual);
  bool can_shorten(const LocalGrouperImpl& grouper, const torch::Tensor& features) const;

 private:
  PointLayer transfer_{nullptr};
  std::vector<PointResidual> operation_;
};
TORCH_MODULE(Neighbourhood);

}  // namespace serpentine
