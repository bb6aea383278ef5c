// Rolling-origin evaluation: Tashman, "Out-of-sample tests of forecasting accuracy", 2000.
#include <algorithm>
#include <stdexcept>

#include <torch/torch.h>

#include "timeseries/forecast.h"
#include "timeseries/forecast_task.h"
#include "timeseries/predict.h"
#include "timeseries/windows.h"

namespace serpentine {
namespace {

// first forecast rows, ascending; the latest window ends with the data
std::vector<int64_t> origins_of(const SeriesSchema& schema, const Series& series,
                                const BacktestOptions& options) {
  const int64_t step = options.step > 0 ? options.step : schema.pred_len;
  std::vector<int64_t> origins;
  const int64_t rows = observed_rows(schema, series);  // the known future is not the past
  for (int64_t origin = rows - schema.pred_len; origin >= schema.seq_len; origin -= step) {
    if (options.origins > 0 && static_cast<int64_t>(origins.size()) == options.origins) break;
    origins.push_back(origin);
  }
  if (origins.empty()) {
    throw std::runtime_error(series.path + ": a backtest needs seq_len " +
                             std::to_string(schema.seq_len) + " + pred_len " +
                             std::to_string(schema.pred_len) + " rows, the file has " +
                             std::to_string(rows));
  }
  std::reverse(origins.begin(), origins.end());
  return origins;
}

// mean over `axis` of what was observed; NaN where nothing was
torch::Tensor observed_mean(const torch::Tensor& values, const torch::Tensor& seen, int64_t axis) {
  return (torch::where(seen, values, torch::zeros_like(values))).sum(axis) / seen.sum(axis);
}

}  // namespace

void BacktestOptions::fields(Fields& f) {
  f("origins", origins, "at most so many origins, the latest; 0: all", {.least = 0});
  f("step", step, "rows between origins; 0: the horizon", {.least = 0});
  f("batch_size", batch_size, "windows a batch", {.least = 1});
}

Backtest backtest(Model& model, const SeriesSchema& schema, const Series& series,
                  const BacktestOptions& options) {
  const std::vector<int64_t> origins = origins_of(schema, series, options);
  const auto prepared = std::make_shared<PreparedSeries>(prepare(schema, series));
  const WindowDataset windows(prepared, {0, series.rows()}, schema.seq_len, schema.pred_len);
  const torch::Tensor actual = target_values(schema, series);
  ForecastTask task({.loss = "mse", .quantiles = schema.quantiles});
  std::vector<torch::Tensor> errors;  // [B, H, C] each, NaN where nothing was observed
  Prediction last;
  for (size_t begin = 0; begin < origins.size(); begin += static_cast<size_t>(options.batch_size)) {
    const size_t end = std::min(origins.size(), begin + static_cast<size_t>(options.batch_size));
    std::vector<int64_t> starts;
    std::vector<torch::Tensor> truth;
    for (size_t i = begin; i < end; ++i) {
      starts.push_back(origins[i] - schema.seq_len);
      truth.push_back(actual.slice(0, origins[i], origins[i] + schema.pred_len));
    }
    const Batch batch = windows.get_batch(starts);
    last = predict(model, schema, batch);
    task.add(last.output, batch);
    errors.push_back(last.values - torch::stack(truth));
  }
  const torch::Tensor error = torch::cat(errors), seen = error.isfinite();
  Backtest out;
  out.names = schema.targets;
  for (const int64_t origin : origins) out.origins.push_back(series.label(origin));
  if (!series.times.empty() && !schema.trained_until.empty()) {  // ISO dates sort as texts
    out.trained = std::count_if(out.origins.begin(), out.origins.end(),
                                [&](const auto& label) { return label <= schema.trained_until; });
  }
  out.origin_mae = observed_mean(error.abs(), seen, 1);
  out.origin_rmse = observed_mean(error.square(), seen, 1).sqrt();
  out.step_mae = observed_mean(error.abs(), seen, 0);
  out.step_rmse = observed_mean(error.square(), seen, 0).sqrt();
  out.metrics = task.metrics();

  const int64_t origin = origins.back();
  out.last.names = schema.targets;
  out.last.levels = schema.quantiles;
  out.last.values = last.values[-1];
  if (last.quantiles.defined()) out.last.quantiles = last.quantiles[-1];
  out.last.history = actual.slice(0, origin - schema.seq_len, origin);
  for (int64_t row = origin - schema.seq_len; row < origin; ++row)
    out.last.history_times.push_back(series.label(row));
  for (int64_t row = origin; row < origin + schema.pred_len; ++row)
    out.last.times.push_back(series.label(row));
  out.last_actual = actual.slice(0, origin, origin + schema.pred_len);
  return out;
}

}  // namespace serpentine
