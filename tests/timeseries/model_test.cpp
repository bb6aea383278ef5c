// What every forecasting model promises, from its file in configs/test.
#include <cmath>

#include <gtest/gtest.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/io/state_dict.h"
#include "timeseries/forecast_task.h"
#include "timeseries/series_source.h"
#include "timeseries/timeseries.h"

namespace serpentine {
namespace {

struct Built {
  std::shared_ptr<SeriesSource> source;
  std::shared_ptr<Model> model;
};

Built build(
    const std::string& type, const std::string& quantiles = "[]", Series* series = nullptr,
    const std::function<void(SeriesOptions&)>& change = [](SeriesOptions&) {}) {
  const Config root = Config::load(std::string(SERPENTINE_SOURCE_DIR) +
                                   "/configs/test/timeseries_" + type + ".yaml");
  auto options = root.child("data").read_typed<SeriesOptions>(SeriesOptions{});
  options.path = std::string(SERPENTINE_SOURCE_DIR) + "/" + options.path;
  change(options);
  Built built;
  built.source = series ? std::make_shared<SeriesSource>(options, *series)
                        : std::make_shared<SeriesSource>(options);
  Config model = root.child("model");
  built.source->fill_model(model, Config::parse("quantiles: " + quantiles));
  Registry<Model> models("model");
  add_forecast_models(models);
  torch::manual_seed(0);
  built.model = models.build(model);
  return built;
}

Batch batch_of(const Built& built) {
  const auto train = built.source->part(Part::kTrain);
  return train->get_batch({0, 5, 11, 40});
}

class ForecastModel : public ::testing::TestWithParam<const char*> {
 protected:
  bool learns() const {
    return std::string(GetParam()) != "seasonal_naive" && std::string(GetParam()) != "drift";
  }
};

TEST_P(ForecastModel, GivesOnePointOrQuantiles) {
  const Built point = build(GetParam()), quantiles = build(GetParam(), "[0.1, 0.5, 0.9]");
  EXPECT_EQ(point.model->forward(batch_of(point)).sizes(), (at::IntArrayRef{4, 12, 7}));
  const torch::Tensor output = quantiles.model->forward(batch_of(quantiles));
  EXPECT_EQ(output.sizes(), (at::IntArrayRef{4, 12, 7, 3}));
  EXPECT_TRUE(output.isfinite().all().item<bool>());
}

TEST_P(ForecastModel, EvaluatesAlikeTwiceAndAfterSaving) {
  const Built one = build(GetParam()), other = build(GetParam());
  for (auto& parameter : other.model->parameters()) torch::nn::init::normal_(parameter.detach());
  one.model->eval();
  other.model->eval();
  const torch::Tensor output = one.model->forward(batch_of(one));
  EXPECT_TRUE(output.equal(one.model->forward(batch_of(one))));
  EXPECT_TRUE(load_state_dict(*other.model, state_dict(*one.model)).ok());
  EXPECT_TRUE(output.equal(other.model->forward(batch_of(other))));
}

TEST_P(ForecastModel, LearnsWithEveryParameter) {
  if (!learns()) {
    EXPECT_TRUE(build(GetParam()).model->parameters().empty());
    return;
  }
  for (const char* quantiles : {"[]", "[0.1, 0.5, 0.9]"}) {
    const Built built = build(GetParam(), quantiles);
    ForecastTask task({.loss = "mse", .quantiles = built.source->schema().quantiles});
    const Batch batch = batch_of(built);
    built.model->eval();  // no dropout, so that both losses are of the same function
    torch::optim::SGD optimizer(built.model->parameters(), 1e-2);
    const Loss before = task.loss(*built.model, batch);
    before.value.backward();
    for (const auto& parameter : built.model->named_parameters()) {
      const torch::Tensor grad = parameter.value().grad();
      ASSERT_TRUE(grad.defined()) << parameter.key();
      EXPECT_TRUE(grad.isfinite().all().item<bool>()) << parameter.key();
      EXPECT_GT(grad.abs().max().item<float>(), 0) << parameter.key();
    }
    optimizer.step();
    EXPECT_LT(task.loss(*built.model, batch).value.item<float>(), before.value.item<float>());
  }
}

TEST_P(ForecastModel, DoesNotReadMissingValues) {
  Series series = read_series(std::string(SERPENTINE_SOURCE_DIR) + "/data/samples/ETTh1.csv.gz");
  for (int64_t row = 0; row < 400; row += 7) series.values[row][row % 7] = std::nan("");
  const Built built = build(GetParam(), "[]", &series);
  built.model->eval();
  Batch batch = batch_of(built), other = batch;
  const torch::Tensor missing = 1 - batch.get("mask");
  EXPECT_GT(missing.sum().item<float>(), 0);
  const torch::Tensor output = built.model->forward(batch);
  EXPECT_TRUE(output.isfinite().all().item<bool>());
  ForecastTask task({});
  const float loss = task.loss(*built.model, batch).value.item<float>();
  EXPECT_TRUE(std::isfinite(loss));

  // a target that was not observed has no say in the loss
  other.target = batch.target + 100 * (1 - batch.get("target_mask"));
  EXPECT_FLOAT_EQ(task.loss(*built.model, other).value.item<float>(), loss);
  if (std::string(GetParam()) == "dlinear")
    return;  // reads missing values as the mean, by definition
  other = batch;
  other.input = batch.input + 100 * missing;
  EXPECT_TRUE(torch::allclose(built.model->forward(other), output, 1e-4, 1e-5));
}

INSTANTIATE_TEST_SUITE_P(, ForecastModel,
                         ::testing::Values("s_mamba", "itransformer", "dlinear", "seasonal_naive",
                                           "drift"),
                         [](const auto& each) { return std::string(each.param); });

class Covariates : public ::testing::TestWithParam<const char*> {};

// a target that is a known-future covariate, or one of two categories, is learnt only if they are
// read
TEST_P(Covariates, ReachTheForecast) {
  torch::manual_seed(1);
  Series series = make_series(torch::randn({600, 3}, torch::kFloat64), {"y", "plan", "day"});
  for (int64_t row = 0; row < 600; ++row) {
    series.texts["day"].push_back(row % 2 ? "a" : "b");
    series.times.push_back((row + (row >= 9 ? 5 : 0)) * 3'600'000'000);  // a gap
  }
  series.frequency = infer_frequency(series.times);
  series.regular = false;
  const Built built = build(GetParam(), "[]", &series, [](SeriesOptions& options) {
    options.ratios = {0.7, 0.1, 0.2};
    options.targets = {"y"};
    options.future = {"plan"};
    options.file.categorical = {"day"};
  });
  built.model->eval();
  const Batch batch = batch_of(built);
  const torch::Tensor output = built.model->forward(batch);
  EXPECT_EQ(output.sizes(), (at::IntArrayRef{4, 12, 1}));
  for (const char* name : {"future", "extra", "elapsed"}) {
    Batch other = batch;
    other.named[name] = batch.get(name) + 1;
    EXPECT_FALSE(torch::allclose(built.model->forward(other), output)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(, Covariates, ::testing::Values("s_mamba", "itransformer"),
                         [](const auto& each) { return std::string(each.param); });

}  // namespace
}  // namespace serpentine
