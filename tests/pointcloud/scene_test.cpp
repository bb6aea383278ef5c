// Labelling scenes block by block, and the page that shows them.
#include <filesystem>

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
    EXPECT_EQ(labels.size(0), points.size(0));
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

// what a model saw, for tests of blocks
struct Recorder : ByHeight {
  std::vector<int64_t> sizes;
  int64_t stop_after = -1;  // blocks, then it throws as a killed process would end
  Tensor forward(const Batch& batch) override {
    if (stop_after >= 0 && static_cast<int64_t>(sizes.size()) == stop_after)
      throw std::runtime_error("stopped");
    sizes.push_back(batch.input.size(1));
    return ByHeight::forward(batch);
  }
};

Tensor ten_by_ten() {  // 10,000 points on 100 x 100, a tenth of them high up
  torch::manual_seed(4);
  Tensor points = torch::rand({10000, 3}, torch::kDouble) * torch::tensor({100.0, 100.0, 0.1});
  points.select(1, 2).add_((torch::arange(10000) % 10 == 0).to(torch::kDouble));
  points.narrow(1, 0, 2).add_(1e9);  // as far as coordinates go; 1e-7 is left of a double's digits
  return points;
}

TEST(SegmentScene, AStoppedRunGoesOnWhereItWas) {
  const Tensor points = ten_by_ten();
  const ScenePoints scene = {points.size(0),
                             [&](int64_t first, int64_t n) { return points.narrow(0, first, n); }};
  const auto folder =
      std::filesystem::temp_directory_path() / ("serpentine_scene_" + std::to_string(getpid()));
  std::filesystem::remove_all(folder);
  SegmentOptions options;
  options.block = 10;
  options.margin = 1;
  options.folder = folder.string();
  options.made_for = "a model";
  Recorder whole;
  SegmentOptions in_memory = options;
  in_memory.folder = "";
  const Tensor expected = segment_scene(whole, scene, torch::kCPU, in_memory)->classes(0, 10000);
  ASSERT_EQ(whole.sizes.size(), 100U);
  EXPECT_TRUE(expected.equal((torch::arange(10000) % 10 == 0).to(torch::kLong)));

  Recorder stopped;
  stopped.stop_after = 37;
  EXPECT_THROW(segment_scene(stopped, scene, torch::kCPU, options), std::runtime_error);
  Recorder rest;
  std::vector<int64_t> done;
  options.progress = [&](int64_t number, int64_t all) {
    done.push_back(number);
    EXPECT_EQ(all, 100);
  };
  EXPECT_TRUE(segment_scene(rest, scene, torch::kCPU, options)->classes(0, 10000).equal(expected));
  EXPECT_EQ(rest.sizes.size(), 63U);
  EXPECT_EQ(done.front(), 37);
  EXPECT_EQ(done.back(), 100);

  // points that went missing are sorted again before the rest is read from them
  std::filesystem::remove(folder / "points");
  std::filesystem::remove(folder / "classes");
  Recorder again;
  EXPECT_TRUE(segment_scene(again, scene, torch::kCPU, options)->classes(0, 10000).equal(expected));
  EXPECT_EQ(again.sizes.size(), 100U);

  // other options, or another model, begin anew; a finished one has nothing left to do
  Recorder none, other;
  segment_scene(none, scene, torch::kCPU, options);
  EXPECT_EQ(none.sizes.size(), 0U);
  options.made_for = "another model";
  segment_scene(other, scene, torch::kCPU, options);
  EXPECT_EQ(other.sizes.size(), 100U);
  std::filesystem::remove_all(folder);
}

TEST(SegmentScene, AMarginIsSeenAndNotLabelled) {
  const Tensor points = ten_by_ten();
  SegmentOptions options;
  options.block = 50;
  for (const double margin : {0.0, 5.0, 60.0}) {
    Recorder model;
    options.margin = margin;
    segment_scene(model, points, torch::kCPU, options);
    ASSERT_EQ(model.sizes.size(), 4U);
    const double side = std::min(50 + margin, 100.0);  // the scene ends on the other sides
    for (const int64_t size : model.sizes)
      EXPECT_NEAR(static_cast<double>(size), side * side, 0.1 * side * side) << margin;
  }
}

TEST(SegmentScene, VotesAreAveraged) {
  struct ByTurn
      : Model {  // sure of class 1 as the scene lies, less sure of class 0 when it is turned
    int64_t calls = 0;
    Tensor forward(const Batch& batch) override {
      const float one = calls++ % 3 == 0 ? 3.0F : -1.0F;
      const Tensor score = torch::full({1, batch.input.size(1)}, one);
      return torch::stack({torch::zeros_like(score), score}, 2);
    }
  };
  // chances of class 1: 0.953 and twice 0.269
  const Tensor points = torch::rand({2000, 3}, torch::kDouble);
  SegmentOptions options;
  ByTurn one, three;
  EXPECT_TRUE(segment_scene(one, points, torch::kCPU, options).eq(1).all().item<bool>());
  options.votes = 3;
  EXPECT_TRUE(segment_scene(three, points, torch::kCPU, options).eq(0).all().item<bool>());
  EXPECT_EQ(three.calls, 3);
  options.votes = 0;
  EXPECT_THROW(segment_scene(one, points, torch::kCPU, options), c10::Error);
}

TEST(SegmentScene, OnePointAndEqualPoints) {
  ByHeight model;
  EXPECT_EQ(segment_scene(model, torch::full({1, 3}, 7.0, torch::kDouble), torch::kCPU, {}).size(0),
            1);
  EXPECT_EQ(
      segment_scene(model, torch::full({5000, 3}, -1e9, torch::kDouble), torch::kCPU, {}).size(0),
      5000);
  SegmentOptions tiny;
  tiny.block = 1e-9;
  EXPECT_THROW(segment_scene(model, torch::rand({5, 3}, torch::kDouble), torch::kCPU, tiny),
               c10::Error);
}

CloudScene small_scene() {
  CloudScene scene;
  scene.points = torch::rand({10, 3}, torch::kDouble) + 4e5;
  scene.layers = {{"classes", class_colours(torch::arange(10)), class_keys({"car", "</script>"})}};
  return scene;
}

TEST(CloudPage, HoldsPointsColoursAndTheTraversal) {
  CloudScene scene = small_scene();
  scene.walk = torch::arange(10);
  scene.marks = {{{4e5, 4e5, 4e5}, "a \"mark\""}};
  const std::string page = cloud_page("a <b> \\u C:\\x", scene);
  EXPECT_NE(page.find("<title>a &lt;b>"), std::string::npos);
  EXPECT_NE(page.find(R"("title":"a \u003cb> \\u C:\\x")"), std::string::npos);
  EXPECT_NE(page.find("traversal"), std::string::npos);
  EXPECT_EQ(page.find("http"), std::string::npos);  // nothing is fetched
  EXPECT_NE(page.find(R"(a \"mark\")"), std::string::npos);
  // a word from a file must not end the script: the page's own end is the only one
  EXPECT_EQ(page.find("</script>"), page.rfind("</script>"));
  // 40 bytes of walk; 0, 1, 2 begin with AAAAAAEAAAAC in base 64
  EXPECT_NE(page.find(R"("walk":"AAAAAAEAAAAC)"), std::string::npos);
  EXPECT_EQ(page.find(R"("walk":null)"), std::string::npos);
}

TEST(CloudPage, RefusesWhatItCannotShow) {
  CloudScene scene = small_scene();
  scene.layers = {};
  EXPECT_THROW(cloud_page("", scene), c10::Error);
  scene = small_scene();
  scene.walk = torch::full({1}, 10);
  EXPECT_THROW(cloud_page("", scene), c10::Error);
  scene = small_scene();
  scene.points = torch::empty({0, 3});
  EXPECT_THROW(cloud_page("", scene), c10::Error);
  EXPECT_THROW(cloud_picture(small_scene(), 1), c10::Error);
}

TEST(CloudPicture, ShowsTheNearerPointWhereTheViewPutsIt) {
  CloudScene scene;  // two points at the ends of the line of sight, two to the right and upwards
  scene.points = torch::tensor({{0.0, 0.0, 1.0},
                                {0.0, 0.0, -1.0},
                                {1.0, 0.0, 0.0},
                                {-1.0, 0.0, 0.0},
                                {0.0, 1.0, 0.0},
                                {0.0, -1.0, 0.0}},
                               torch::kDouble);
  Tensor colours = torch::zeros({6, 3}, torch::kByte);
  colours[0][0] = 200;  // red in front of green
  colours[1][1] = 200;
  colours[2][2] = 200;    // blue to the right
  colours[4].fill_(200);  // white above
  scene.layers = {{"", colours}};
  CloudView view;
  view.yaw = 0;
  view.pitch = 0;  // from above: x to the right, y upwards, z towards the eye
  view.width = view.height = 100;
  const Tensor picture = cloud_picture(scene, 0, view);
  ASSERT_EQ(picture.sizes(), (std::vector<int64_t>{100, 100, 3}));
  const auto at = [&](int64_t y, int64_t x) {
    return std::vector<int64_t>{picture[y][x][0].item<int64_t>(), picture[y][x][1].item<int64_t>(),
                                picture[y][x][2].item<int64_t>()};
  };
  EXPECT_EQ(at(50, 50), (std::vector<int64_t>{200, 0, 0}));
  EXPECT_EQ(at(50, 92), (std::vector<int64_t>{0, 0, 150}));
  EXPECT_EQ(at(8, 50), (std::vector<int64_t>{150, 150, 150}));
  EXPECT_EQ(at(20, 20), (std::vector<int64_t>{17, 17, 17}));
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
