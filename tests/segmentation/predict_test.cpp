// Sliding windows: every slab size and window gives what one whole pass gives; places come back.
#include "segmentation/predict.h"

#include "segmentation/files.h"
#include "support/close.h"

namespace serpentine::testing {
namespace {

/// Outputs that depend on the voxel alone, so that every window agrees.
class Threshold : public Model {
 public:
  torch::Tensor forward(const Batch& batch) override {
    const auto x = batch.input.select(1, 0);
    return torch::stack({0.5 - x, x - 0.5, 2 * x - 3}, 1);
  }
};

SegmentationPlan plan_of(int64_t dims, std::vector<int64_t> patch) {
  SegmentationPlan plan;
  plan.dims = dims;
  plan.classes = 3;
  plan.class_names = {"background", "a", "b"};
  plan.values = {"0", "4", "9"};
  plan.spacing = {1, 1, 1};
  plan.normalize = {"none"};
  plan.ct = {0, 1, 0, 1};
  plan.patch = std::move(patch);
  plan.features = {4};
  plan.strides = {dims == 3 ? "1x1x1" : "1x1"};
  plan.kernels = plan.strides;
  return plan;
}

Volume volume_of(const torch::Tensor& image, std::array<double, 3> spacing = {1, 1, 1}) {
  Volume volume;
  volume.data = image.unsqueeze(0);
  volume.spacing = spacing;
  volume.name = "test";
  return volume;
}

TEST(Predict, EqualsTheWholeWhateverTheWindows) {
  torch::manual_seed(1);
  const auto image = torch::rand({13, 17, 11}) * 4 + 0.01;
  const auto& x = image;
  const auto whole = torch::stack({0.5 - x, x - 0.5, 2 * x - 3}).argmax(0);
  const auto expected = whole.eq(1) * 4 + whole.eq(2) * 9;
  const std::vector<std::shared_ptr<Model>> models = {std::make_shared<Threshold>()};
  for (const auto& patch : {std::vector<int64_t>{4, 8, 6}, {16, 16, 16}, {13, 17, 11}}) {
    for (const int64_t slab : {1, 5, 0}) {
      auto volume = volume_of(image);
      PredictOptions options;
      options.slab = slab;
      options.batch = 3;
      const auto labels = predict_volume(models, plan_of(3, patch), volume, torch::kCPU, options);
      expect_equal(labels.to(torch::kLong), expected.to(torch::kLong));
    }
  }
  auto volume = volume_of(image);
  const auto flat = predict_volume(models, plan_of(2, {1, 8, 8}), volume, torch::kCPU, {});
  expect_equal(flat.to(torch::kLong), expected.to(torch::kLong));
}

/// Adds a ramp over the place in the window, so that windows disagree where they overlap.
class Ramp : public Model {
 public:
  static torch::Tensor of(int64_t height, int64_t width) {
    return torch::arange(height, torch::kFloat).unsqueeze(1) * 0.31 -
           torch::arange(width, torch::kFloat) * 0.17 - 0.6;
  }
  torch::Tensor forward(const Batch& batch) override {
    const auto x = batch.input.select(1, 0);
    const auto y = x + of(x.size(-2), x.size(-1));
    return torch::stack({torch::zeros_like(y), y, y * 2 - 1.5}, 1);
  }
};

TEST(Predict, WeighsWindowsByTheirGaussian) {
  torch::manual_seed(8);
  const int64_t H = 29, W = 37, side_y = 12, side_x = 16;
  const auto image = torch::rand({1, H, W}) * 3 + 0.01;
  PredictOptions options;
  options.mirror = false;
  auto volume = volume_of(image);
  const auto labels = predict_volume({std::make_shared<Ramp>()}, plan_of(2, {1, side_y, side_x}),
                                     volume, torch::kCPU, options);
  // the mean of the windows' ramps at each voxel, weighed by a Gaussian of an eighth of the side
  const auto expected_with = [&](bool gaussian) {
    auto sum = torch::zeros({H, W}, torch::kDouble), weight = sum.clone();
    const auto ramp = Ramp::of(side_y, side_x);
    for (const int64_t top : window_starts(H, side_y, options.step)) {
      for (const int64_t left : window_starts(W, side_x, options.step)) {
        for (int64_t y = 0; y < side_y; ++y) {
          for (int64_t x = 0; x < side_x; ++x) {
            const double dy = (static_cast<double>(y) - 5.5) / 1.5,
                         dx = (static_cast<double>(x) - 7.5) / 2;
            // the four middle voxels weigh 1; none less than a thousandth
            const double peak = std::exp(-(0.5 / 1.5 * 0.5 / 1.5 + 0.25 * 0.25) / 2);
            const double own =
                gaussian ? std::max(1e-3, std::exp(-(dy * dy + dx * dx) / 2) / peak) : 1;
            sum[top + y][left + x] += own * ramp[y][x].item<double>();
            weight[top + y][left + x] += own;
          }
        }
      }
    }
    const auto y = image[0] + sum / weight;
    const auto best = torch::stack({torch::zeros_like(y), y, y * 2 - 1.5}).argmax(0);
    return (best.eq(1) * 4 + best.eq(2) * 9).unsqueeze(0);
  };
  expect_equal(labels.to(torch::kLong), expected_with(true));
  EXPECT_GT(labels.ne(expected_with(false)).sum().item<int64_t>(), 20);  // the weights matter
}

TEST(Predict, ResamplesBackAndKeepsTheBorderOfZeros) {
  auto image = torch::zeros({10, 20, 20});
  image.slice(0, 2, 8).slice(1, 4, 16).slice(2, 4, 16).fill_(1);
  auto plan = plan_of(3, {8, 8, 8});
  plan.spacing = {1, 1, 1};
  auto volume = volume_of(image, {2, 0.5, 0.5});
  const auto labels =
      predict_volume({std::make_shared<Threshold>()}, plan, volume, torch::kCPU, {});
  EXPECT_EQ(labels.sizes(), (at::IntArrayRef{10, 20, 20}));
  expect_equal(labels.to(torch::kFloat), image * 4);
}

TEST(Predict, SlabsEqualTheWholeWhenResampling) {
  torch::manual_seed(5);
  const auto image = torch::rand({9, 12, 12}) * 4 + 0.01;
  const std::vector<std::shared_ptr<Model>> models = {std::make_shared<Threshold>()};
  torch::Tensor first;
  for (const int64_t slab : {1, 2, 7, 100}) {
    auto volume = volume_of(image, {1.7, 0.8, 1.1});
    PredictOptions options;
    options.slab = slab;
    const auto labels = predict_volume(models, plan_of(3, {6, 6, 6}), volume, torch::kCPU, options);
    if (!first.defined()) first = labels;
    expect_equal(labels, first);
  }
}

TEST(Predict, KnowsItsMemory) {
  auto volume = volume_of(torch::ones({64, 64, 64}));
  const auto plan = plan_of(3, {16, 32, 32});
  PredictOptions options;
  const auto memory = predict_memory(plan, volume, options);
  EXPECT_EQ(memory.image, 4 * 64 * 64 * 64);
  EXPECT_EQ(memory.sums, 4 * 4 * 16 * 64 * 64);  // 16 of the 64 slices, three classes and weights
  EXPECT_EQ(memory.windows, 7 * 3 * 3);
}

TEST(Predict, WindowsReachTheEnd) {
  EXPECT_EQ(window_starts(10, 16, 0.5), (std::vector<int64_t>{0}));
  EXPECT_EQ(window_starts(16, 16, 0.5), (std::vector<int64_t>{0}));
  const auto starts = window_starts(37, 16, 0.5);
  EXPECT_EQ(starts.front(), 0);
  EXPECT_EQ(starts.back(), 21);
  for (size_t i = 1; i < starts.size(); ++i) {
    EXPECT_LE(starts[i] - starts[i - 1], 8);
  }
}

}  // namespace
}  // namespace serpentine::testing
