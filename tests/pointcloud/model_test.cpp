// What every model of clouds promises, from its file in configs/test.
#include <cmath>

#include <gtest/gtest.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/io/state_dict.h"
#include "core/train/precision.h"
#include "pointcloud/pointcloud.h"
#include "support/close.h"

namespace serpentine {
namespace {

struct Built {
  std::shared_ptr<DataSource> source;
  std::shared_ptr<Model> model;
  std::shared_ptr<Task> task;
};

Built build(const std::string& type, const std::vector<std::string>& overrides = {}) {
  const std::string root = SERPENTINE_SOURCE_DIR;
  auto all = overrides;
  all.push_back("data.path=" + root + "/tests/pointcloud/data/shapes");
  const Config config = Config::load(root + "/configs/test/pointcloud_" + type + ".yaml", all);
  Registry<DataSource> sources("data");
  Registry<Model> models("model");
  Registry<Task> tasks("task");
  add_point_sources(sources);
  add_point_models(models);
  add_point_tasks(tasks);
  Built built;
  built.source = sources.build(config.child("data"));
  Config model = config.child("model");
  built.source->fill_model(model, config.child("task"));
  torch::manual_seed(0);
  built.model = models.build(model);
  built.task = tasks.build(config.child("task"));
  return built;
}

Batch batch_of(const Built& built) {
  return built.source->part(Part::kTrain)->get_batch({0, 3, 6, 8});
}

class CloudModel : public ::testing::TestWithParam<const char*> {
 protected:
  bool classifies() const { return std::string(GetParam()) != "point_mamba_masked"; }
};

TEST_P(CloudModel, EvaluatesAlikeTwiceAndAfterSaving) {
  const Built one = build(GetParam()), other = build(GetParam());
  for (auto& parameter : other.model->parameters()) torch::nn::init::normal_(parameter.detach());
  one.model->eval();
  other.model->eval();
  const Batch batch = batch_of(one);
  const auto run = [&](const Built& built) {
    torch::manual_seed(5);  // the mask of pre-training
    return built.model->forward(batch);
  };
  const torch::Tensor output = run(one);
  if (classifies()) {
    EXPECT_EQ(output.sizes(), (at::IntArrayRef{4, 3}));
  }
  EXPECT_TRUE(output.isfinite().all().item<bool>());
  EXPECT_TRUE(output.equal(run(one)));
  EXPECT_TRUE(load_state_dict(*other.model, state_dict(*one.model)).ok());
  EXPECT_TRUE(output.equal(run(other)));
}

TEST_P(CloudModel, LearnsWithEveryParameter) {
  const Built built = build(GetParam());
  const Batch batch = batch_of(built);
  built.model->train();
  // the order of pre-training is drawn, and each has scales of its own
  for (int64_t curve = 0; curve < 2; ++curve) {
    Batch seen = batch;
    seen.named["curve"] = torch::tensor({curve}, torch::kLong);
    built.task->loss(*built.model, seen).value.backward();
  }
  for (const auto& parameter : built.model->named_parameters()) {
    if (!parameter.value().requires_grad()) continue;
    ASSERT_TRUE(parameter.value().grad().defined()) << parameter.key();
    EXPECT_TRUE(parameter.value().grad().isfinite().all().item<bool>()) << parameter.key();
  }

  torch::optim::Adam optimizer(built.model->parameters(), 2e-3);
  double first = 0, last = 0;
  for (int step = 0; step < 40; ++step) {
    torch::manual_seed(step % 4);
    optimizer.zero_grad();
    const Loss loss = built.task->loss(*built.model, batch);
    loss.value.backward();
    optimizer.step();
    if (step < 4) first += loss.value.item<double>();
    if (step >= 36) last += loss.value.item<double>();
  }
  EXPECT_LT(last, first);
}

TEST_P(CloudModel, AnswersForEachCloudAlone) {
  if (!classifies()) return;
  const Built built = build(GetParam());
  built.model->eval();
  const Batch batch = batch_of(built);
  const torch::Tensor together = built.model->forward(batch);
  for (int64_t i = 0; i < batch.size(); ++i) {
    Batch alone;
    alone.input = batch.input.narrow(0, i, 1);
    EXPECT_TRUE(testing::is_close_max(built.model->forward(alone), together.narrow(0, i, 1), 1e-4));
  }
}

TEST_P(CloudModel, StandsEqualPointsAndFewPoints) {
  const Built built = build(GetParam());
  built.model->eval();
  Batch batch;
  batch.input = torch::zeros({2, 64, 3});
  batch.input[1] = 0.5;
  EXPECT_TRUE(built.model->forward(batch).isfinite().all().item<bool>());
  batch.input = torch::randn({1, 2, 3});  // fewer than groups and neighbours: a sentence, or less
  try {
    EXPECT_TRUE(built.model->forward(batch).isfinite().all().item<bool>());
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what_without_backtrace()).find("2"), std::string::npos);
  }
}

TEST_P(CloudModel, GivesTheSameOnAGpu) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "no CUDA device";
  const Built built = build(GetParam());
  built.model->eval();
  Batch batch = batch_of(built);
  if (!classifies()) return;  // its mask is drawn on the device
  const torch::Tensor here = built.model->forward(batch);
  built.model->to(torch::kCUDA);
  const torch::Tensor there = built.model->forward(batch.to(torch::kCUDA)).cpu();
  EXPECT_TRUE(testing::is_close_max(there, here, 1e-3));
}

INSTANTIATE_TEST_SUITE_P(, CloudModel,
                         ::testing::Values("pcm_cls", "pointnet2", "mamba3d", "point_mamba",
                                           "point_mamba_masked"),
                         [](const auto& of) { return std::string(of.param); });

TEST(PointCloudMamba, GivesTheSameByTheShorterWay) {
  for (const std::vector<std::string>& overrides :
       {std::vector<std::string>{},
        {"model.use_xyz=false", "model.bias=true"},
        {"model.pre_blocks=[2,1]", "model.published_order=true"}}) {
    Built built = build("pcm_cls", overrides);
    built.model->train();
    {
      const torch::NoGradGuard no_grad;  // norms with statistics that are not 0 and 1
      for (auto& parameter : built.model->parameters()) torch::nn::init::normal_(parameter, 0, 0.3);
      built.model->forward(batch_of(built));
    }
    built.model->eval();
    const Batch batch = batch_of(built);
    const torch::Tensor expected = built.model->forward(batch);  // with a gradient: the long way
    ASSERT_TRUE(expected.requires_grad());
    {
      const torch::NoGradGuard no_grad;
      EXPECT_TRUE(testing::is_close(built.model->forward(batch), expected, 1e-4));
    }
    const c10::InferenceMode inference;
    EXPECT_TRUE(testing::is_close(built.model->forward(batch), expected.detach(), 1e-4));
  }
}

TEST(PointCloudMamba, GivesNearlyTheSameInBfloat16) {
  Built built = build("pcm_cls");
  built.model->eval();
  const Batch batch = batch_of(built);
  const torch::NoGradGuard no_grad;
  const torch::Tensor expected = built.model->forward(batch);
  const Autocast autocast(torch::kCPU, torch::kBFloat16);
  const torch::Tensor narrow = built.model->forward(batch).to(torch::kFloat);
  EXPECT_TRUE(testing::is_close_max(narrow, expected, 3e-2));
  EXPECT_FALSE(narrow.equal(expected));
}

/// A spoilt weight must be seen, not end as an answer.
TEST(PointCloudMamba, CarriesNaNByTheShorterWay) {
  Built built = build("pcm_cls");
  built.model->eval();
  const Batch batch = batch_of(built);
  const torch::NoGradGuard no_grad;
  int64_t spoilt = 0;
  for (const auto& item : built.model->named_parameters()) {
    if (item.key().find("pre_blocks") == std::string::npos || item.value().dim() < 2) continue;
    torch::Tensor value = item.value().view({-1})[0];
    const torch::Tensor before = value.clone();
    value.fill_(NAN);
    EXPECT_TRUE(built.model->forward(batch).isnan().any().item<bool>()) << item.key();
    value.copy_(before);
    ++spoilt;
  }
  EXPECT_GT(spoilt, 0);
  EXPECT_FALSE(built.model->forward(batch).isnan().any().item<bool>());
}

TEST(CloudSource, CutsEveryClassAlike) {
  std::vector<bool> tested(18, false);
  for (int64_t fold = 0; fold < 3; ++fold) {
    const Built built = build("pointnet2", {"data.fold=" + std::to_string(fold)});
    EXPECT_EQ(built.source->part(Part::kTrain)->size(), 9);
    EXPECT_EQ(built.source->part(Part::kValidation)->size(), 3);
    const auto test = built.source->part(Part::kTest)->get_batch({0, 1, 2, 3, 4, 5});
    for (int64_t target = 0; target < 3; ++target) {
      EXPECT_EQ((test.target == target).sum().item<int64_t>(), 2);
    }
    EXPECT_NEAR(test.input.norm(2, 2).max().item<float>(), 1, 1e-5);
  }
  const auto classes = build("pointnet2").source->description()["classes"];
  EXPECT_EQ(classes.dump(), R"(["ball","box","cone"])");
}

TEST(CloudTask, CountsExactlyAndVotes) {
  struct Fixed : Model {
    torch::Tensor forward(const Batch& batch) override { return batch.input.select(1, 0) * 10; }
  };
  const Built built = build("pointnet2", {"task.vote.rotate=none", "task.vote.scale_least=0.5",
                                          "task.vote.scale_most=0.5"});
  Fixed model;
  Batch batch;  // the first point's largest coordinate is the class
  batch.input =
      torch::tensor({1.F, 0.F, 0.F, 0.F, 1.F, 0.F, 0.F, 0.F, 1.F, 0.F, 0.F, 1.F}).view({4, 1, 3});
  batch.target = torch::tensor({0, 1, 2, 0}, torch::kLong);
  const auto once = [&](at::ArrayRef<int64_t> cuts) {
    int64_t first = 0;
    for (const int64_t end : cuts) {
      Batch some;
      some.input = batch.input.slice(0, first, end);
      some.target = batch.target.slice(0, first, end);
      built.task->evaluate(model, some);
      first = end;
    }
    return built.task->metrics();
  };
  const auto whole = once({4}), pieces = once({1, 2, 4});
  EXPECT_DOUBLE_EQ(whole.at("accuracy"), 0.75);
  EXPECT_DOUBLE_EQ(whole.at("mean_accuracy"), (0.5 + 1 + 1) / 3);
  for (const auto& [name, value] : whole) {
    EXPECT_NEAR(pieces.at(name), value, 1e-7) << name;
  }

  // two votes: of logits 10 and 5 the mean of the probabilities
  const double right = (1 / (1 + 2 * std::exp(-10.0)) + 1 / (1 + 2 * std::exp(-5.0))) / 2;
  const double wrong =
      (std::exp(-10.0) / (1 + 2 * std::exp(-10.0)) + std::exp(-5.0) / (1 + 2 * std::exp(-5.0))) / 2;
  EXPECT_NEAR(whole.at("loss"), -(3 * std::log(right) + std::log(wrong)) / 4, 1e-4);
}

}  // namespace
}  // namespace serpentine
