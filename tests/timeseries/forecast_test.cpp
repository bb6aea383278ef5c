// The task's metrics, forecasts beyond the data and backtests.
#include "timeseries/forecast.h"

#include <cmath>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "timeseries/forecast_task.h"
#include "timeseries/series_source.h"
#include "timeseries/timeseries.h"

namespace serpentine {
namespace {

std::shared_ptr<Model> model_of(SeriesSource& source, const std::string& type,
                                const std::string& task = "{}") {
  Config config = Config::parse(type.front() == '{' ? type : "type: " + type);
  source.fill_model(config, Config::parse(task));
  Registry<Model> models("model");
  add_forecast_models(models);
  return models.build(config);
}

SeriesOptions small_forecaster(int64_t seq_len = 8, int64_t pred_len = 4) {
  SeriesOptions options;
  options.seq_len = seq_len;
  options.pred_len = pred_len;
  options.period = 4;
  return options;
}

Series line(int64_t rows) {
  std::vector<Time> times;
  for (int64_t row = 0; row < rows; ++row) times.push_back(row * 3'600'000'000);
  const torch::Tensor steps = torch::arange(rows, torch::kFloat64);
  return make_series(torch::stack({10 + 2 * steps, 5 - steps}, 1), {"up", "down"}, times);
}

// gives what it is told to
struct Fixed : Model {
  torch::Tensor output;
  torch::Tensor forward(const Batch&) override { return output; }
};

Batch random_batch(int64_t size) {
  torch::manual_seed(3);
  Batch batch;
  batch.input = torch::randn({size, 8, 2});
  batch.target = torch::randn({size, 4, 2});
  batch.named["target_mask"] = (torch::rand({size, 4, 2}) > 0.3).to(torch::kFloat32);
  batch.named["scale"] = torch::tensor({{3.f, -1.f}, {2.f, 5.f}, {0.5f, 0.f}}).expand({size, 3, 2});
  return batch;
}

TEST(ForecastMetrics, AreThoseOfTheDefinition) {
  const Batch batch = random_batch(9);
  Fixed model;
  model.output = torch::randn({9, 4, 2});
  ForecastTask task({});
  task.evaluate(model, batch);
  const auto metrics = task.metrics();
  double count = 0, squared = 0, absolute = 0, scaled = 0, scaled_count = 0, symmetric = 0;
  for (int64_t b = 0; b < 9; ++b) {
    for (int64_t h = 0; h < 4; ++h) {
      for (int64_t c = 0; c < 2; ++c) {
        if (batch.get("target_mask")[b][h][c].item<float>() == 0) continue;
        const double y = batch.target[b][h][c].item<double>(),
                     f = model.output[b][h][c].item<double>();
        const double mean = c ? -1 : 3, std = c ? 5 : 2;
        ++count;
        squared += (y - f) * (y - f);
        absolute += std::abs(y - f);
        if (c == 0) scaled += std::abs(y - f) / 0.5, ++scaled_count;
        symmetric +=
            200 * std * std::abs(y - f) / (std::abs(y * std + mean) + std::abs(f * std + mean));
      }
    }
  }
  EXPECT_NEAR(metrics.at("mse"), squared / count, 1e-12);
  EXPECT_NEAR(metrics.at("rmse"), std::sqrt(squared / count), 1e-12);
  EXPECT_NEAR(metrics.at("mae"), absolute / count, 1e-12);
  EXPECT_NEAR(metrics.at("mase"), scaled / scaled_count, 1e-12);
  EXPECT_NEAR(metrics.at("smape"), symmetric / count, 1e-10);
}

TEST(ForecastMetrics, OfQuantilesAreThoseOfTheDefinition) {
  Batch batch = random_batch(5);
  batch.named.erase("target_mask");
  Fixed model;
  model.output = torch::randn({5, 4, 2, 3});  // crossing: put in order before it is judged
  ForecastTask task({.loss = "mse", .quantiles = {0.1, 0.5, 0.9}});
  task.evaluate(model, batch);
  const auto metrics = task.metrics();
  const torch::Tensor q = uncrossed(model.output.to(torch::kFloat64)),
                      y = batch.target.to(torch::kFloat64);
  double pinball[3];
  for (int64_t i = 0; i < 3; ++i) {
    const torch::Tensor error = y - q.select(3, i);
    const double level = i == 0 ? 0.1 : i == 1 ? 0.5 : 0.9;
    pinball[i] = torch::where(error > 0, level * error, (level - 1) * error).mean().item<double>();
  }
  EXPECT_NEAR(metrics.at("pinball"), (pinball[0] + pinball[1] + pinball[2]) / 3, 1e-12);
  EXPECT_NEAR(metrics.at("crps"), 2 * (pinball[0] * 0.25 + pinball[1] * 0.4 + pinball[2] * 0.25),
              1e-12);
  EXPECT_NEAR(
      metrics.at("coverage"),
      ((y >= q.select(3, 0)) & (y <= q.select(3, 2))).to(torch::kFloat64).mean().item<double>(),
      1e-12);
  EXPECT_NEAR(metrics.at("mae"), (y - q.select(3, 1)).abs().mean().item<double>(), 1e-12);
}

TEST(ForecastMetrics, DoNotDependOnTheBatchSize) {
  const Batch batch = random_batch(10);
  Fixed model;
  model.output = torch::randn({10, 4, 2});
  const torch::Tensor all = model.output;
  std::vector<std::map<std::string, double>> found;
  for (const int64_t size : {10, 3, 1}) {
    ForecastTask task({});
    for (int64_t begin = 0; begin < 10; begin += size) {
      Batch part;
      part.input = batch.input.slice(0, begin, begin + size);
      part.target = batch.target.slice(0, begin, begin + size);
      for (const auto& [name, tensor] : batch.named)
        part.named[name] = tensor.slice(0, begin, begin + size);
      model.output = all.slice(0, begin, begin + size);
      task.evaluate(model, part);
    }
    found.push_back(task.metrics());
  }
  for (const auto& [name, value] : found[0]) {
    EXPECT_NEAR(value, found[1].at(name), 1e-12 * std::abs(value)) << name;
    EXPECT_NEAR(value, found[2].at(name), 1e-12 * std::abs(value)) << name;
  }
}

TEST(Forecast, GoesOnBeyondTheDataInItsUnits) {
  SeriesSource source(small_forecaster(), line(60));
  const auto drift = model_of(source, "drift");
  for (const int64_t horizon : {0, 3, 10}) {  // 10 is beyond the model's own 4
    const Forecast out = forecast(*drift, source.schema(), source.series(), horizon);
    const int64_t steps = horizon ? horizon : 4;
    const torch::Tensor future = torch::arange(60, 60 + steps, torch::kFloat64);
    EXPECT_TRUE(
        torch::allclose(out.values, torch::stack({10 + 2 * future, 5 - future}, 1), 1e-5, 1e-3));
    ASSERT_EQ(out.times.size(), static_cast<size_t>(steps));
    EXPECT_EQ(out.history_times.back(), "1970-01-03 11:00:00");
    EXPECT_EQ(out.times.front(), "1970-01-03 12:00:00");
    EXPECT_EQ(out.history[7][0].item<double>(), 10 + 2 * 59);
  }
}

/// Rows of the plan behind the last target are its known future: read, needed, and not forecast.
TEST(Forecast, ReadsTheKnownFuture) {
  Series series = line(60);
  series.columns = {"y", "plan"};
  SeriesOptions options = small_forecaster();
  options.targets = {"y"};
  options.future = {"plan"};
  SeriesSource source(options, series);
  torch::manual_seed(1);
  const auto model =
      model_of(source, "{type: s_mamba, d_model: 8, d_ff: 8, d_state: 2, e_layers: 1}");
  const auto planned = [&](int64_t rows, double plan) {  // `rows` more, without y
    Series longer = line(60 + rows);
    longer.columns = series.columns;
    longer.values.slice(0, 60).select(1, 0).fill_(std::nan(""));
    longer.values.slice(0, 60).select(1, 1).fill_(plan);
    return longer;
  };
  const Forecast low = forecast(*model, source.schema(), planned(4, -55));
  EXPECT_EQ(low.values.sizes(), (at::IntArrayRef{4, 1}));
  EXPECT_EQ(low.times.front(), "1970-01-03 12:00:00");
  EXPECT_EQ(low.times.back(), "1970-01-03 15:00:00");
  EXPECT_EQ(low.history[7][0].item<double>(), 10 + 2 * 59);
  EXPECT_TRUE(low.values.isfinite().all().item<bool>());
  const Forecast high = forecast(*model, source.schema(), planned(4, 55));
  EXPECT_FALSE(low.values.equal(high.values));

  // a shorter horizon needs fewer rows, and more rows than needed change nothing
  EXPECT_EQ(forecast(*model, source.schema(), planned(4, 55), 2).values.size(0), 2);
  EXPECT_TRUE(forecast(*model, source.schema(), planned(9, 55)).values.equal(high.values));
  const auto refusal = [&](int64_t rows, int64_t horizon) -> std::string {
    try {
      (void)forecast(*model, source.schema(), planned(rows, 0), horizon);
    } catch (const std::exception& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(refusal(1, 4),
            "<memory>: the future covariates are needed for 4 rows after 1970-01-03 11:00:00, the "
            "file has 1");
  EXPECT_EQ(refusal(9, 6), "<memory>: with covariates the horizon is at most pred_len = 4, got 6");
}

TEST(Forecast, QuantilesAscend) {
  Series series = line(60);
  series.values += torch::sin(series.values * 3);
  SeriesSource source(small_forecaster(), series);
  const auto naive = model_of(source, "seasonal_naive", "quantiles: [0.1, 0.5, 0.9]");
  const Forecast out = forecast(*naive, source.schema(), source.series());
  ASSERT_EQ(out.quantiles.sizes(), (at::IntArrayRef{4, 2, 3}));
  EXPECT_TRUE((out.quantiles.diff(1, 2) > 0).all().item<bool>());
  EXPECT_TRUE(out.values.equal(out.quantiles.select(2, 1)));
}

TEST(Forecast, SaysWhatIsMissing) {
  SeriesSource source(small_forecaster(), line(60));
  const auto drift = model_of(source, "drift");
  const auto error_of = [&](const Series& series, int64_t horizon) -> std::string {
    try {
      (void)forecast(*drift, source.schema(), series, horizon);
    } catch (const std::exception& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(error_of(line(7), 4), "<memory>: the model reads 8 rows, the file has 7");
  EXPECT_EQ(error_of(line(30), 31),
            "<memory>: a horizon of 31 rows is longer than the data (30 rows)");
  Series other = line(30);
  other.columns[1] = "left";
  EXPECT_EQ(error_of(other, 4), "<memory>: there is no column 'down'");
  Series quarters = line(30);
  for (auto& time : quarters.times) time /= 4;
  quarters.frequency = infer_frequency(quarters.times);
  EXPECT_EQ(error_of(quarters, 4),
            "<memory>: its rows are 15min apart, the model was trained on 1h");
}

TEST(Backtest, ComparesEveryOriginWithWhatCame) {
  SeriesSource source(small_forecaster(), line(60));
  const auto drift = model_of(source, "drift"), naive = model_of(source, "seasonal_naive");
  const Backtest exact = backtest(*drift, source.schema(), source.series(), {.batch_size = 5});
  EXPECT_EQ(exact.origins.size(), 13u);  // 56, 52, ... 8
  EXPECT_LT(exact.step_mae.max().item<double>(), 1e-3);
  EXPECT_EQ(exact.trained, 9);  // 8, 12, ... 40 of the 42 training rows
  for (const int64_t batch_size : {1, 4, 100}) {
    const Backtest out =
        backtest(*naive, source.schema(), source.series(), {.step = 1, .batch_size = batch_size});
    EXPECT_EQ(out.origins.size(), 49u);
    // the value of four rows before is off by four steps of each line
    EXPECT_TRUE(torch::allclose(
        out.origin_mae, torch::tensor({8., 4.}, torch::kFloat64).expand({49, 2}), 1e-4, 1e-4));
    EXPECT_NEAR(out.metrics.at("mase"), 1, 1e-4);
    EXPECT_EQ(out.last_actual[3][0].item<double>(), 10 + 2 * 59);
  }
}

}  // namespace
}  // namespace serpentine
