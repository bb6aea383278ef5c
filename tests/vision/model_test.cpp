// What every image classifier promises, from its file in configs/test.
#include <array>

#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/io/state_dict.h"
#include "core/train/step_graph.h"
#include "support/close.h"
#include "vision/image_model.h"
#include "vision/ss2d.h"
#include "vision/vision.h"

namespace serpentine {
namespace {

constexpr int64_t kClasses = 3, kSide = 32;

std::shared_ptr<ImageModel> build(const std::string& type,
                                  const std::vector<std::string>& overrides = {}) {
  const std::string root = SERPENTINE_SOURCE_DIR;
  auto all = overrides;
  all.push_back("model.classes=" + std::to_string(kClasses));
  all.push_back("model.image_size=[" + std::to_string(kSide) + "]");
  const Config config = Config::load(root + "/configs/test/vision_" + type + ".yaml", all);
  Registry<Model> models("model");
  add_vision_models(models);
  torch::manual_seed(0);
  auto model = std::dynamic_pointer_cast<ImageModel>(models.build(config.child("model")));
  EXPECT_TRUE(model) << type;
  return model;
}

Batch images(int64_t height = kSide, int64_t width = kSide) {
  torch::manual_seed(7);
  Batch batch;
  batch.input = torch::randn({4, 3, height, width});
  batch.target = torch::tensor({0, 1, 2, 1}, torch::kLong);
  return batch;
}

class VisionModel : public ::testing::TestWithParam<const char*> {};

TEST_P(VisionModel, EvaluatesAlikeTwiceAndAfterSaving) {
  const auto one = build(GetParam()), other = build(GetParam());
  for (auto& parameter : other->parameters()) torch::nn::init::normal_(parameter.detach());
  one->eval();
  other->eval();
  const Batch batch = images();
  const torch::Tensor output = one->forward(batch);
  EXPECT_EQ(output.sizes(), (at::IntArrayRef{4, kClasses}));
  EXPECT_TRUE(output.isfinite().all().item<bool>());
  EXPECT_TRUE(output.equal(one->forward(batch)));
  EXPECT_TRUE(load_state_dict(*other, state_dict(*one)).ok());
  EXPECT_TRUE(output.equal(other->forward(batch)));
}

TEST_P(VisionModel, LearnsWithEveryParameter) {
  const auto model = build(GetParam());
  const Batch batch = images();
  const auto loss = [&] {
    torch::manual_seed(3);  // the same drop path and shuffles each time
    return torch::cross_entropy_loss(model->forward(batch), batch.target);
  };
  model->train();
  const torch::Tensor before = loss();
  before.backward();
  for (const auto& parameter : model->named_parameters()) {
    const auto grad = parameter.value().grad();
    ASSERT_TRUE(grad.defined()) << parameter.key();
    EXPECT_TRUE(grad.isfinite().all().item<bool>()) << parameter.key();
  }
  torch::optim::SGD(model->parameters(), 1e-3).step();
  EXPECT_LT(loss().item<double>(), before.item<double>());
}

TEST_P(VisionModel, RecomputesTheSameGradients) {
  const auto plain = build(GetParam()), again = build(GetParam(), {"model.recompute=true"});
  const Batch batch = images();
  for (const auto& model : {plain, again}) {
    model->train();
    torch::manual_seed(3);
    torch::cross_entropy_loss(model->forward(batch), batch.target).backward();
  }
  const auto expected = plain->named_parameters();
  for (const auto& parameter : again->named_parameters()) {
    EXPECT_TRUE(
        testing::is_close_max(parameter.value().grad(), expected[parameter.key()].grad(), 1e-5))
        << parameter.key();
  }
}

TEST_P(VisionModel, TakesOddSizesAndSingleImages) {
  const auto model = build(GetParam());
  model->eval();
  const Batch whole = images(45, 53);
  const torch::Tensor together = model->forward(whole);
  EXPECT_EQ(together.sizes(), (at::IntArrayRef{4, kClasses}));
  EXPECT_TRUE(together.isfinite().all().item<bool>());
  Batch alone = whole;
  alone.input = whole.input.narrow(0, 2, 1);
  EXPECT_TRUE(testing::is_close_max(model->forward(alone), together.narrow(0, 2, 1), 1e-4));
}

TEST_P(VisionModel, GivesFeaturesAndMaps) {
  const auto model = build(GetParam());
  model->eval();
  const Batch batch = images();
  std::map<std::string, torch::Tensor> trace;
  model->trace = &trace;
  const torch::Tensor output = model->forward(batch);
  model->trace = nullptr;
  const torch::Tensor features = model->forward_features(batch.input);
  EXPECT_EQ(features.sizes(), (at::IntArrayRef{4, model->num_features()}));
  EXPECT_TRUE(trace.at("features").equal(features));
  EXPECT_TRUE(model->forward_head(features).equal(output));
  const auto maps = model->forward_maps(batch.input);
  const auto channels = model->map_channels();
  ASSERT_EQ(maps.size(), channels.size());
  ASSERT_FALSE(maps.empty());
  for (size_t i = 0; i < maps.size(); ++i) {
    ASSERT_EQ(maps[i].dim(), 4);
    EXPECT_EQ(maps[i].size(1), channels[i]);
    if (i > 0) {
      EXPECT_LE(maps[i].size(2), maps[i - 1].size(2));
    }
  }
}

TEST_P(VisionModel, RunsInBfloat16) {
  const auto model = build(GetParam());
  model->train();
  const Batch batch = images();
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  const torch::Tensor output = model->forward(batch);
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_TRUE(output.isfinite().all().item<bool>());
  output.to(torch::kFloat).sum().backward();
  for (const auto& parameter : model->named_parameters()) {
    EXPECT_TRUE(parameter.value().grad().isfinite().all().item<bool>()) << parameter.key();
  }
}

TEST_P(VisionModel, GivesTheSameOnAGpu) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "no CUDA device";
  const auto model = build(GetParam());
  model->eval();
  const Batch batch = images();
  const torch::Tensor here = model->forward(batch);
  model->to(torch::kCUDA);
  EXPECT_TRUE(testing::is_close_max(model->forward(batch.to(torch::kCUDA)).cpu(), here, 1e-3));
}

TEST_P(VisionModel, TrainsByOneGraphOnAGpu) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "no CUDA device";
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);  // as a trainer does
  at::globalContext().setDeterministicCuDNN(true);
  const auto model = build(GetParam());
  model->train();
  model->to(torch::kCUDA);
  const auto pass = [&](const Batch& batch) {
    const auto loss = torch::nn::functional::cross_entropy(model->forward(batch), batch.target);
    loss.backward();
    return Loss{loss, batch.target.size(0)};
  };
  const auto recorded = StepGraph::record(pass, *model, images().to(torch::kCUDA));
  at::globalContext().setDeterministicAlgorithms(false, /*warn_only=*/false);
  const bool shuffles = std::string(GetParam()).find("shuffle") == 0;  // an order of its own a step
  EXPECT_EQ(recorded.graph == nullptr, shuffles) << recorded.refusal;
}

INSTANTIATE_TEST_SUITE_P(, VisionModel,
                         ::testing::Values("vim", "vmamba", "efficient_vmamba", "shuffle_mamba",
                                           "shuffle_mamba_reg", "plain_mamba", "local_vim",
                                           "medmamba", "vim2", "resnet"),
                         [](const auto& of) { return std::string(of.param); });

TEST(VisionModels, HaveThePublishedNumberOfParameters) {
  struct Case {
    const char* model;
    int64_t parameters;
  };
  for (const Case& one :
       {Case{"{type: vmamba, size: tiny}", 30249064},
        Case{"{type: vmamba, size: tiny_s2l5}", 30705832},
        Case{"{type: vmamba, size: small}", 50147752},
        Case{"{type: vmamba, size: small_s1l20}", 49012840},
        Case{"{type: vmamba, size: base}", 88557800},
        Case{"{type: vmamba, size: base_s1l20}", 86614504},
        Case{"{type: vmamba, size: tiny_v0}", 22893448},
        Case{"{type: vmamba, size: small_v0}", 44417416},
        Case{"{type: vmamba, size: base_v0}", 76254056},
        Case{"{type: resnet, size: '18'}", 11689512}, Case{"{type: resnet, size: '34'}", 21797672},
        Case{"{type: resnet, size: '50'}", 25557032}}) {
    Registry<Model> models("model");
    add_vision_models(models);
    int64_t count = 0;
    for (const auto& parameter : models.build(Config::parse(one.model))->parameters())
      count += parameter.numel();
    EXPECT_EQ(count, one.parameters) << one.model;
  }
}

TEST(Ss2d, ProjectsDeltaDenselyAsByRoute) {
  std::array<std::vector<torch::Tensor>, 2> gradients;
  for (const bool dense : {false, true}) {
    torch::manual_seed(1);
    const auto rows = torch::randn({2, 5, 4, 3}, torch::kDouble).requires_grad_();
    const auto weight = torch::randn({4, 6, 3}, torch::kDouble).requires_grad_();
    const auto delta = project_delta(rows, weight, dense);
    delta.square().sum().backward();
    gradients[dense ? 1 : 0] = {delta, rows.grad(), weight.grad()};
  }
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(testing::is_close_max(gradients[1][i], gradients[0][i], 1e-12));
  }
}

TEST(VisionModels, TakeAnySerialization) {
  Registry<Model> models("model");
  add_vision_models(models);
  for (const std::string model_text :
       {"type: vmamba, depths: [1, 2], dims: [8]", "type: medmamba, depths: [1, 1], dims: [8]",
        "type: vim, patch_size: 4, stride: 4, dim: 8, depth: 2, class_token: both",
        "type: shuffle_mamba, patch_size: 4, stride: 4, dim: 8, depth: 2, registers: 2",
        "type: efficient_vmamba, depths: [1, 1, 1], dims: [8]",
        "type: vim2, token_layers: [1, 1], channel_layers: [1, 1], dim: 8, channel_step: 4",
        "type: plain_mamba, patch_size: 4, stride: 4, dim: 8, depth: 2, routed_rows: true"})
    for (const char* scan : {"{type: hilbert}", "{type: zigzag}", "{type: atrous}",
                             "{type: bidirectional, inner: "
                             "{type: raster}}",
                             "{type: shuffle, inner: {type: cross}}",
                             "{type: stack, parts: [{type: window, size: 3}, {type: raster}]}"}) {
      const auto model = models.build(Config::parse(
          "{" + model_text + ", classes: 3, image_size: [36, 28], scan: " + scan + "}"));
      Batch batch;
      batch.input = torch::randn({2, 3, 36, 28});
      const auto output = model->forward(batch);
      output.sum().backward();
      for (const auto& parameter : model->named_parameters()) {
        ASSERT_TRUE(parameter.value().grad().defined())
            << model_text << " " << scan << " " << parameter.key();
      }
    }
}

}  // namespace
}  // namespace serpentine
