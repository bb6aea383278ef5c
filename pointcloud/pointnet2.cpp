// PointNet++ for classes of clouds, the baseline: balls around farthest points, a small PointNet in
// each, level by level.
//
// Qi et al., "PointNet++", arXiv 1706.02413, Figure 2, single-scale grouping. Keys as
// yanx27/Pointnet_Pointnet2_pytorch's pointnet2_cls_ssg.
#include <torch/torch.h>

#include "core/check.h"
#include "pointcloud/point_layers.h"
#include "pointcloud/pointcloud.h"
#include "pointcloud/sampling.h"

namespace serpentine {
namespace {

constexpr const char* kPointnet2Who = "pointnet2";

struct PointNet2Options {
  int64_t classes = 40, in_channels = 0;
  std::vector<int64_t> points = {512, 128}, neighbours = {32, 64};
  std::vector<double> radii = {0.2, 0.4};
  std::vector<int64_t> widths = {64, 64, 128, 128, 128, 256, 256, 512, 1024};
  std::vector<int64_t> head = {512, 256};
  double dropout = 0.4;

  void fields(Fields& f) {
    f("classes", classes, "classes of clouds", {.least = 1});
    f("in_channels", in_channels, "features a point beside its place", {.least = 0});
    f("points", points, "points that each level but the last keeps, at most", {.least = 1});
    f("neighbours", neighbours, "points a ball, of each level but the last", {.least = 1});
    f("radii", radii, "of the balls of each level but the last, in the unit of the points",
      {.least = 1e-9});
    f("widths", widths, "channels of three layers a level, the last level sees the whole cloud",
      {.least = 1});
    f("head", head, "channels of the head's two hidden layers", {.least = 1});
    f("dropout", dropout, "after each hidden layer", {.least = 0, .most = 0.99});
  }

  void check() const {
    SERPENTINE_CHECK(neighbours.size() == points.size() && radii.size() == points.size(),
                     kPointnet2Who,
                     "points, neighbours and radii must have one value a level, got ",
                     points.size(), ", ", neighbours.size(), " and ", radii.size());
    SERPENTINE_CHECK(widths.size() == 3 * (points.size() + 1), kPointnet2Who,
                     "widths must have three ", "values for each of the ", points.size() + 1,
                     " levels, got ", widths.size());
    SERPENTINE_CHECK(head.size() == 2, kPointnet2Who, "head must have two values, got ",
                     head.size());
  }
};

/// Points in balls, three layers on each, then their maximum. Keys `mlp_convs.<i>`, `mlp_bns.<i>`.
class SetAbstractionImpl : public torch::nn::Module {
 public:
  SetAbstractionImpl(int64_t in, at::ArrayRef<int64_t> widths) {
    torch::nn::ModuleList convs, norms;
    for (const int64_t width : widths) {
      convs_.push_back(torch::nn::Conv2d(torch::nn::Conv2dOptions(in, width, 1)));
      norms_.push_back(torch::nn::BatchNorm1d(width));
      convs->push_back(convs_.back());
      norms->push_back(norms_.back());
      in = width;
    }
    register_module("mlp_convs", convs);
    register_module("mlp_bns", norms);
  }

  /// grouped: [B, S, k, C] -> [B, S, C'].
  torch::Tensor forward(torch::Tensor grouped) {
    for (size_t i = 0; i < convs_.size(); ++i) {
      const auto mapped = torch::linear(grouped, convs_[i]->weight.flatten(1), convs_[i]->bias);
      grouped = torch::relu(batch_norm(norms_[i], mapped));
    }
    return std::get<0>(grouped.max(2));
  }

 private:
  std::vector<torch::nn::Conv2d> convs_;
  std::vector<torch::nn::BatchNorm1d> norms_;
};
TORCH_MODULE(SetAbstraction);

class PointNet2 : public Model {
 public:
  explicit PointNet2(const PointNet2Options& options) : options_(options) {
    options.check();
    int64_t in = options.in_channels;
    for (size_t level = 0; level <= options.points.size(); ++level) {
      const at::ArrayRef<int64_t> widths(options.widths.data() + 3 * level, 3);
      levels_.push_back(
          register_module("sa" + std::to_string(level + 1), SetAbstraction(3 + in, widths)));
      in = widths.back();
    }
    for (size_t i = 0; i < options.head.size(); ++i) {
      const std::string number = std::to_string(i + 1);
      maps_.push_back(register_module("fc" + number, torch::nn::Linear(in, options.head[i])));
      norms_.push_back(register_module("bn" + number, torch::nn::BatchNorm1d(options.head[i])));
      in = options.head[i];
    }
    maps_.push_back(register_module("fc3", torch::nn::Linear(in, options.classes)));
  }

  torch::Tensor forward(const Batch& batch) override {  // [B, classes]
    torch::Tensor points = batch.input, features = batch.get("features");
    if (options_.in_channels == 0) features = torch::Tensor();
    check_shape(kPointnet2Who, points, "points", {-1, -1, 3}, "B, N, 3");
    if (options_.in_channels > 0)
      check_shape(kPointnet2Who, features, "features",
                  {points.size(0), points.size(1), options_.in_channels}, "B, N, in_channels");
    for (size_t level = 0; level < options_.points.size(); ++level) {
      const auto chosen = farthest_points(points, std::min(options_.points[level], points.size(1)));
      const auto centres = take_rows(points, chosen);
      const auto balls =
          ball_query(centres, points, options_.radii[level], options_.neighbours[level]);
      auto grouped = take_rows(points, balls) - centres.unsqueeze(2);
      if (features.defined()) grouped = torch::cat({grouped, take_rows(features, balls)}, 3);
      features = levels_[level](grouped);
      points = centres;
    }
    const auto all = features.defined() ? torch::cat({points, features}, 2) : points;
    torch::Tensor x = levels_.back()(all.unsqueeze(1)).squeeze(1);
    for (size_t i = 0; i < norms_.size(); ++i) {
      x = torch::relu(norms_[i](maps_[i](x)));
      x = torch::dropout(x, options_.dropout, is_training());
    }
    return maps_.back()(x);
  }

 private:
  PointNet2Options options_;
  std::vector<SetAbstraction> levels_;
  std::vector<torch::nn::Linear> maps_;
  std::vector<torch::nn::BatchNorm1d> norms_;
};

}  // namespace

void add_pointnet2(Registry<Model>& all) {
  all.add<PointNet2Options>("pointnet2", [](const PointNet2Options& options) {
    return std::make_shared<PointNet2>(options);
  });
}

}  // namespace serpentine
