#include "timeseries/forecast.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include <torch/torch.h>

#include "timeseries/forecast_task.h"
#include "timeseries/predict.h"
#include "timeseries/windows.h"

namespace serpentine {
namespace {

void check(const SeriesSchema& schema, const Series& series, int64_t rows, int64_t horizon) {
  if (rows < schema.seq_len) {
    throw std::runtime_error(series.path + ": the model reads " + std::to_string(schema.seq_len) +
                             " rows, the file has " + std::to_string(rows));
  }
  if (horizon > rows) {
    throw std::runtime_error(series.path + ": a horizon of " + std::to_string(horizon) +
                             " rows is longer than the data (" + std::to_string(rows) + " rows)");
  }
  const bool covariates = !schema.past.empty() || !schema.future.empty() || !schema.levels.empty();
  if (covariates && horizon > schema.pred_len) {
    throw std::runtime_error(series.path + ": with covariates the horizon is at most pred_len = " +
                             std::to_string(schema.pred_len) + ", got " + std::to_string(horizon));
  }
  const bool ahead = !schema.future.empty() || !schema.future_categories.empty();
  if (ahead && series.rows() - rows < horizon) {
    throw std::runtime_error(series.path + ": the future covariates are needed for " +
                             std::to_string(horizon) + " rows after " + series.label(rows - 1) +
                             ", the file has " + std::to_string(series.rows() - rows));
  }
}

Series first_rows(const Series& series, int64_t rows) {
  Series out = series;
  out.values = series.values.slice(0, 0, rows);
  if (!out.times.empty()) out.times.resize(static_cast<size_t>(rows));
  for (auto& [name, texts] : out.texts) texts.resize(static_cast<size_t>(rows));
  return out;
}

// `values` [H, C] appended as rows of the targets (other columns do not exist here)
void append(Series& series, const SeriesSchema& schema, const torch::Tensor& values) {
  torch::Tensor rows = torch::full({values.size(0), series.values.size(1)},
                                   std::numeric_limits<double>::quiet_NaN(), torch::kFloat64);
  for (size_t c = 0; c < schema.targets.size(); ++c) {
    rows.select(1, series.column(schema.targets[c]))
        .copy_(values.select(1, static_cast<int64_t>(c)));
  }
  series.values = torch::cat({series.values, rows});
  if (series.times.empty()) return;
  const Time last = series.times.back();
  for (int64_t i = 1; i <= values.size(0); ++i)
    series.times.push_back(series.frequency.after(last, i));
}

}  // namespace

int64_t observed_rows(const SeriesSchema& schema, const Series& series) {
  torch::Tensor seen = torch::zeros({series.rows()}, torch::kBool);
  for (const auto& name : schema.targets)
    seen = seen | series.values.select(1, series.column(name)).isfinite();
  const torch::Tensor rows = seen.nonzero();
  if (rows.size(0) == 0) throw std::runtime_error(series.path + ": the targets have no value");
  return rows[-1].item<int64_t>() + 1;
}

Forecast forecast(Model& model, const SeriesSchema& schema, const Series& series, int64_t horizon) {
  const int64_t rows = observed_rows(schema, series),
                wanted = horizon > 0 ? horizon : schema.pred_len;
  check(schema, series, rows, wanted);
  Series known = series;
  Forecast out;
  out.names = schema.targets;
  out.levels = schema.quantiles;
  std::vector<torch::Tensor> points, quantiles;
  for (int64_t done = 0; done < wanted; done += schema.pred_len) {
    const int64_t origin = rows + done;
    // rows of the future covariates stay; without covariates nothing lies beyond the origin
    if (wanted > schema.pred_len) known = first_rows(known, origin);
    const int64_t ahead = std::max<int64_t>(0, origin + schema.pred_len - known.rows());
    const Batch batch =
        windows_before(prepare(schema, known, ahead), origin, schema.seq_len, schema.pred_len);
    const Prediction next = predict(model, schema, batch);
    points.push_back(next.values[0]);
    if (next.quantiles.defined()) quantiles.push_back(next.quantiles[0]);
    if (done + schema.pred_len < wanted) append(known, schema, points.back());
  }
  out.values = torch::cat(points).slice(0, 0, wanted);
  if (!quantiles.empty()) out.quantiles = torch::cat(quantiles).slice(0, 0, wanted);
  out.history = target_values(schema, series).slice(0, rows - schema.seq_len, rows);
  const Series past = first_rows(series, rows);
  for (int64_t row = rows - schema.seq_len; row < rows; ++row)
    out.history_times.push_back(past.label(row));
  for (int64_t row = rows; row < rows + wanted; ++row)
    out.times.push_back((row < series.rows() ? series : past).label(row));
  return out;
}

}  // namespace serpentine
