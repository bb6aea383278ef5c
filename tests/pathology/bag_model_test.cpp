// What every model of bags promises, from its file in configs/test.
#include <gtest/gtest.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/io/state_dict.h"
#include "core/nn/recompute.h"
#include "pathology/bag_model.h"
#include "pathology/bag_source.h"
#include "pathology/memory_budget.h"
#include "pathology/pathology.h"
#include "support/close.h"

namespace serpentine {
namespace {

struct Built {
  std::shared_ptr<BagSource> source;
  std::shared_ptr<BagModel> model;
  std::shared_ptr<Task> task;
};

Built build(const std::string& name, const std::vector<std::string>& overrides = {}) {
  const std::string root = SERPENTINE_SOURCE_DIR;
  auto all = overrides;
  const std::string data = name == "survival" ? "survival.index.csv" : "bags.csv";
  all.push_back("data.path=" + root + "/tests/pathology/data/" + data);
  const Config config = Config::load(root + "/configs/test/pathology_" + name + ".yaml", all);
  Registry<DataSource> sources("data");
  Registry<Model> models("model");
  Registry<Task> tasks("task");
  add_pathology_sources(sources);
  add_pathology_models(models);
  add_pathology_tasks(tasks);
  Built built;
  built.source = std::dynamic_pointer_cast<BagSource>(sources.build(config.child("data")));
  Config model = config.child("model");
  built.source->fill_model(model, config.child("task"));
  torch::manual_seed(0);
  built.model = std::dynamic_pointer_cast<BagModel>(models.build(model));
  built.task = tasks.build(config.child("task"));
  return built;
}

Batch batch_of(const Built& built, std::vector<int64_t> bags = {0, 1, 2, 5}) {
  return built.source->part(Part::kTrain)->get_batch(bags);
}

class AnyBagModel : public ::testing::TestWithParam<const char*> {};

TEST_P(AnyBagModel, ReadsEachBagForItself) {
  const Built built = build(GetParam());
  built.model->eval();
  const torch::NoGradGuard no_grad;
  const Batch batch = batch_of(built);
  const BagOutput together = built.model->read(batch, false);
  EXPECT_TRUE(together.logits.isfinite().all().item<bool>());
  const int64_t tiles = batch.input.size(0);
  ASSERT_TRUE(together.attention.defined());
  EXPECT_EQ(together.attention.size(0), tiles);
  ASSERT_TRUE(together.instance_logits.defined());
  EXPECT_EQ(together.instance_logits.sizes(), (at::IntArrayRef{tiles, together.logits.size(1)}));
  const std::vector<int64_t> bags = {0, 1, 2, 5};
  for (size_t i = 0; i < bags.size(); ++i) {
    const torch::Tensor alone = built.model->forward(batch_of(built, {bags[i]}));
    testing::expect_close(alone, together.logits.narrow(0, static_cast<int64_t>(i), 1), 1e-5);
  }
}

TEST_P(AnyBagModel, EvaluatesAlikeAfterSaving) {
  const Built one = build(GetParam()), other = build(GetParam());
  for (auto& parameter : other.model->parameters()) torch::nn::init::normal_(parameter.detach());
  one.model->eval();
  other.model->eval();
  EXPECT_TRUE(load_state_dict(*other.model, state_dict(*one.model)).ok());
  EXPECT_TRUE(one.model->forward(batch_of(one)).equal(other.model->forward(batch_of(one))));
}

TEST_P(AnyBagModel, LearnsWithEveryParameter) {
  const Built built = build(GetParam());
  const Batch batch = batch_of(built, {0, 1, 2, 3, 4, 5, 6, 7});
  built.model->train();
  torch::optim::Adam optimizer(built.model->parameters(), 5e-3);
  double first = 0, last = 0;
  for (int step = 0; step < 40; ++step) {
    torch::manual_seed(step);
    optimizer.zero_grad();
    const Loss loss = built.task->loss(*built.model, batch);
    EXPECT_EQ(loss.count, 8);
    loss.value.backward();
    if (step == 0) {
      for (const auto& parameter : built.model->named_parameters()) {
        EXPECT_TRUE(parameter.value().grad().defined()) << parameter.key();
      }
    }
    optimizer.step();
    (step < 5 ? first : last) =
        step < 5 ? first + loss.value.item<double>() / 5 : loss.value.item<double>();
  }
  EXPECT_LT(last, first);
}

TEST_P(AnyBagModel, TakesOneTileAndRefusesNone) {
  const Built built = build(GetParam());
  built.model->eval();
  Batch batch;
  batch.input = torch::randn({1, built.source->set().width});
  EXPECT_TRUE(built.model->forward(batch).isfinite().all().item<bool>());
  batch.input = torch::randn({2, built.source->set().width});
  batch.offsets = torch::tensor({0, 2, 2}, torch::kInt);
  EXPECT_THROW(built.model->forward(batch), c10::Error);
  batch.offsets = torch::Tensor();
  batch.input = torch::randn({2, built.source->set().width + 1});
  EXPECT_THROW(built.model->forward(batch), c10::Error);
}

TEST_P(AnyBagModel, MetricsDoNotDependOnTheBatches) {
  const Built built = build(GetParam());
  built.model->eval();
  const auto part = built.source->part(Part::kTrain);
  std::vector<std::map<std::string, double>> found;
  for (const int64_t size : {1, 4, 100}) {
    for (int64_t first = 0; first < part->size(); first += size) {
      std::vector<int64_t> bags;
      for (int64_t i = first; i < std::min(first + size, part->size()); ++i) bags.push_back(i);
      built.task->evaluate(*built.model, part->get_batch(bags));
    }
    const torch::Tensor sums = built.task->sums().flatten().clone();
    built.task->set_sums(sums);
    found.push_back(built.task->metrics());
  }
  EXPECT_GE(found[0].size(), 3U);
  for (const auto& [name, value] : found[0]) {
    EXPECT_NEAR(found[1].at(name), value, 1e-5) << name;
    EXPECT_NEAR(found[2].at(name), value, 1e-5) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(, AnyBagModel,
                         ::testing::Values("mean_mil", "max_mil", "ab_mil", "ds_mil", "clam_sb",
                                           "clam_mb", "trans_mil", "s4_mil", "mamba_mil",
                                           "survival"),
                         [](const auto& of) { return std::string(of.param); });

/// Gradients of a loss over a batch, by name.
std::map<std::string, torch::Tensor> gradients(BagModel& model, Batch batch) {
  model.zero_grad();
  torch::manual_seed(5);  // of the dropout
  batch.input = batch.input.detach().clone().requires_grad_();
  const torch::Tensor logits = model.forward(batch);
  (logits * torch::arange(logits.numel()).view_as(logits)).sum().backward();
  std::map<std::string, torch::Tensor> found = {{"logits", logits.detach()},
                                                {"input", batch.input.grad()}};
  for (const auto& parameter : model.named_parameters()) {
    if (parameter.value().grad().defined())
      found[parameter.key()] = parameter.value().grad().clone();
  }
  return found;
}

// Bags of 200 tiles and budgets of kilobytes, which ask for several parts.
struct BudgetCase {
  const char *model, *budget;
};

class BudgetOfModel : public ::testing::TestWithParam<BudgetCase> {};

TEST_P(BudgetOfModel, PartsGiveTheSameGradients) {
  const auto [name, budget] = GetParam();
  for (const char* dropout : {"model.dropout=0", "model.dropout=0.5"}) {
    std::vector<std::string> options = {dropout};
    if (std::string(name) == "ds_mil") options = {"model.passing_v=true"};
    const Built whole = build(name, options);
    options.push_back(std::string("model.memory_budget=") + budget);
    const Built parts = build(name, options);
    ASSERT_TRUE(load_state_dict(*parts.model, state_dict(*whole.model)).ok());
    torch::manual_seed(3);
    Batch batch;
    batch.input = torch::randn({200, whole.source->set().width});
    batch.offsets = torch::tensor({0, 150, 200}, torch::kInt);
    ::testing::internal::CaptureStderr();
    const auto expected = gradients(*whole.model, batch), found = gradients(*parts.model, batch);
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find("200 tiles would take"), std::string::npos) << said;
    for (const auto& [key, tensor] : expected) {
      // the softmax takes the score's bias away: its gradient is rounding alone
      if (!tensor.defined() || tensor.abs().max().item<double>() < 1e-5) continue;
      EXPECT_TRUE(testing::is_close_max(found.at(key), tensor, 2e-5))
          << name << " " << dropout << " " << key;
    }
    whole.model->eval();
    parts.model->eval();
    const torch::NoGradGuard no_grad;
    testing::expect_close(parts.model->forward(batch), whole.model->forward(batch), 1e-5, name);
  }
}

INSTANTIATE_TEST_SUITE_P(
    , BudgetOfModel,
    ::testing::Values(BudgetCase{"mamba_mil", "700KB"}, BudgetCase{"ab_mil", "60KB"},
                      BudgetCase{"mean_mil", "30KB"}, BudgetCase{"max_mil", "30KB"},
                      BudgetCase{"clam_sb", "60KB"}, BudgetCase{"clam_mb", "60KB"},
                      BudgetCase{"ds_mil", "50KB"}),
    [](const auto& of) { return std::string(of.param.model); });

TEST(MemoryBudget, IsRefusedByModelsThatKeepNone) {
  for (const char* name : {"s4_mil", "trans_mil"})
    EXPECT_THROW(build(name, {"model.memory_budget=1GiB"}), c10::Error) << name;
}

TEST(MemoryBudget, ReadsSizesAndRefusesTheImpossible) {
  EXPECT_EQ(parse_bytes("x", "8GiB"), int64_t{8} << 30);
  EXPECT_EQ(parse_bytes("x", "1.5 MB"), 1500000);
  EXPECT_EQ(parse_bytes("x", ""), 0);
  for (const char* wrong : {"8 gigs", "-1GB", "GiB", "nan"}) {
    EXPECT_THROW(parse_bytes("x", wrong), c10::Error) << wrong;
  }
  MemoryBudget budget("x", "1MB");
  EXPECT_EQ(budget.parts(100, 10, 1000, 64), 1);
  EXPECT_EQ(budget.parts(10000, 10, 1000, 64), 16);
  EXPECT_THROW(budget.parts(1000000, 10, 1000, 64), c10::Error);
}

TEST(MemoryBudget, TrainsABagOf200000Tiles) {
  const Built built = build("mamba_mil", {"model.hidden=8", "model.layers=1", "model.attention=4",
                                          "model.mamba.d_state=2", "model.memory_budget=150MB"});
  Batch batch;
  batch.input = torch::randn({200000, built.source->set().width});
  batch.target = torch::tensor({1});
  const Loss loss = built.task->loss(*built.model, batch);
  loss.value.backward();
  EXPECT_TRUE(loss.value.isfinite().item<bool>());
  for (const auto& parameter : built.model->named_parameters()) {
    EXPECT_TRUE(parameter.value().grad().isfinite().all().item<bool>()) << parameter.key();
  }
}

TEST(Recompute, GivesValuesAndGradientsOfTheFunction) {
  torch::manual_seed(0);
  const auto x = torch::randn({7, 3}).requires_grad_(), w = torch::randn({2, 3}).requires_grad_();
  const Recomputable function = [](const std::vector<torch::Tensor>& in) {
    return torch::linear(in[0], in[1]).tanh();
  };
  const auto whole = function({x, w});
  whole.square().sum().backward();
  const auto grad_x = x.grad().clone(), grad_w = w.grad().clone();
  for (const int64_t rows : {1, 3, 7, 100}) {
    x.mutable_grad().reset();
    w.mutable_grad().reset();
    const auto parts = recomputed_rows(function, x, rows, {w});
    testing::expect_close(parts, whole, 1e-6);
    parts.square().sum().backward();
    testing::expect_close(x.grad(), grad_x, 1e-6);
    testing::expect_close(w.grad(), grad_w, 1e-6);
  }
}

/// Tiles on a slide's lattice with holes; the sequence in the file is shuffled.
Batch slide(int64_t width) {
  torch::manual_seed(1);
  Batch batch;
  std::vector<float> places;
  for (int64_t y = 0; y < 6; ++y) {
    for (int64_t x = 0; x < 5; ++x) {
      if ((x + 2 * y) % 4 == 0) continue;
      places.push_back(static_cast<float>(512 * x));
      places.push_back(static_cast<float>(512 * y));
    }
  }
  batch.coords = torch::tensor(places).view({-1, 2});
  batch.input = torch::randn({batch.coords.size(0), width});
  return batch;
}

TEST(BagScan, CurvesDoNotDependOnTheFilesSequence) {
  for (const char* tiles : {"raster", "hilbert", "morton"}) {
    const Built built = build("mamba_mil", {std::string("model.tiles.type=") + tiles,
                                            "model.tiles.cell=512", "model.hidden=16"});
    built.model->eval();
    const Batch batch = slide(built.source->set().width);
    const auto shuffle = torch::randperm(batch.input.size(0));
    Batch other;
    other.input = batch.input.index_select(0, shuffle);
    other.coords = batch.coords.index_select(0, shuffle);
    const auto expected = built.model->forward(batch);
    testing::expect_close(built.model->forward(other), expected, 1e-5, tiles);
    const Built given = build("mamba_mil");
    given.model->eval();
    EXPECT_FALSE(testing::is_close(given.model->forward(other), given.model->forward(batch), 1e-5));
  }
}

TEST(BagScan, CrossesTheLatticeOfTiles) {
  for (const char* scan : {"cross", "lattice", "bidirectional", "random", "reorder"}) {
    std::vector<std::string> options = {std::string("model.scan.type=") + scan};
    if (std::string(scan) == "cross" || std::string(scan) == "lattice")
      options.push_back("model.scan.cell=512");
    const Built built = build("mamba_mil", options);
    const Batch one = slide(built.source->set().width);
    Batch batch = one;  // two slides
    batch.input = torch::cat({one.input, one.input * 2});
    batch.coords = torch::cat({one.coords, one.coords});
    const auto end = static_cast<int32_t>(one.input.size(0));
    batch.offsets = torch::tensor({0, end, 2 * end}, torch::kInt);
    const auto found = gradients(*built.model, batch);
    for (const auto& [key, tensor] : found) {
      EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << scan << " " << key;
    }
    if (std::string(scan) == "random") continue;
    built.model->eval();
    testing::expect_close(built.model->forward(one), built.model->forward(batch).narrow(0, 0, 1),
                          1e-5, scan);
  }
}

TEST(BagScan, NeedsCoordinatesForCurves) {
  const Built built = build("mamba_mil", {"model.tiles.type=hilbert"});
  EXPECT_THROW(built.model->forward(batch_of(built)), c10::Error);
  EXPECT_THROW(build("mamba_mil", {"model.tiles.type=cross"}), c10::Error);
}

}  // namespace
}  // namespace serpentine
