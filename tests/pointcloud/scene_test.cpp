// Labelling scenes block by block, and the page that shows them.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "pointcloud/draw_cloud.h"
#include "pointcloud/segment_scene.h"

namespace serpentine {
namespace {

using torch::Tensor;

// class 1 above half of what is seen
struct ByHeight : Model {
  int64_t most = 0;
  Tensor forward(const Batch& batch) override {
    most = std::max(most, batch.input.size(1));
    const Tensor above = (batch.input.select(2, 2) - 0.5) * 10;
    return torch::stack({-above, above}, 2);
  }
};

TEST(SegmentScene, LabelsEveryPointOnceWhateverTheBlocks) {
  torch::manual_seed(0);
  Tensor points = torch::rand({3000, 3}, torch::kDouble) * torch::tensor({100.0, 50.0, 1.0});
  points.select(1, 2).add_(1);
  points.select(1, 0).add_(5e5);  // as UTM
  points = torch::cat({points, points.narrow(0, 0, 1)});
  points[0][2] = 1;  // so that each block begins at height 1, nearly
  for (const double block : {7.0, 30.0, 1000.0}) {
    ByHeight model;
    SegmentOptions options;
    options.block = block;
    options.margin = 3;
    int64_t calls = 0;
    options.progress = [&](int64_t, int64_t) { ++calls; };
    const Tensor labels = segment_scene(model, points, torch::kCPU, options);
    const Tensor expected = (points.select(1, 2) > 1.5).to(torch::kLong);
    EXPECT_GT((labels == expected).to(torch::kDouble).mean().item<double>(), 0.93) << block;
    EXPECT_EQ(calls > 1, block < 100);
  }
}

TEST(SegmentScene, ABlockOfTooManyPointsIsThinned) {
  torch::manual_seed(0);
  const Tensor points = torch::rand({4000, 3}, torch::kDouble);
  ByHeight model;
  SegmentOptions options;
  options.points = 500;
  const Tensor labels = segment_scene(model, points, torch::kCPU, options);
  EXPECT_EQ(model.most, 500);
  const Tensor expected = (points.select(1, 2) > 0.5).to(torch::kLong);
  EXPECT_GT((labels == expected).to(torch::kDouble).mean().item<double>(), 0.9);
  EXPECT_EQ(segment_scene(model, torch::empty({0, 3}, torch::kDouble), torch::kCPU, {}).size(0), 0);
  EXPECT_THROW(segment_scene(model, torch::full({2, 3}, NAN, torch::kDouble), torch::kCPU, {}),
               c10::Error);
}

TEST(CloudPage, HoldsPointsColoursAndTheTraversal) {
  const Tensor points = torch::rand({10, 3}), classes = torch::arange(10);
  const std::string page =
      cloud_page("a <b>", points, {{"classes", class_colours(classes)}}, torch::arange(10));
  EXPECT_NE(page.find("a &lt;b>"), std::string::npos);
  EXPECT_NE(page.find("traversal"), std::string::npos);
  EXPECT_EQ(page.find("http"), std::string::npos);  // nothing is fetched
  EXPECT_NE(page.find("points:\""), std::string::npos);
  // 120 bytes of walk are 160 digits of base 64; 0 and 1 begin with AAAAAAEAAAA
  EXPECT_NE(page.find("walk:\"AAAAAAEAAAAC"), std::string::npos);
  EXPECT_EQ(page.find("walk:null"), std::string::npos);
  EXPECT_THROW(cloud_page("", points, {}), c10::Error);
}

TEST(CloudPage, ClassesHaveColoursOfTheirOwn) {
  const Tensor colours = class_colours(torch::arange(20));
  EXPECT_EQ(std::get<0>(at::unique_dim(colours, 0)).size(0), 20);
  PointCloud cloud;
  cloud.points = torch::zeros({20, 3}, torch::kDouble);
  EXPECT_TRUE(
      colours_of(coloured(cloud, colours)).mul(255).round().to(torch::kByte).equal(colours));
}

}  // namespace
}  // namespace serpentine
