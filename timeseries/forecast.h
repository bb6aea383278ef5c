// Forecasts beyond the data and rolling-origin backtests, in the series' own units.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <torch/types.h>

#include "core/train/task.h"
#include "timeseries/schema.h"
#include "timeseries/series.h"

namespace serpentine {

struct Forecast {
  std::vector<std::string> names;  // C targets
  std::vector<std::string>
      history_times;               // L labels: ISO dates, or row numbers without a date column
  std::vector<std::string> times;  // horizon labels
  torch::Tensor history;           // float64 [L, C], NaN where missing
  torch::Tensor values;        // float64 [horizon, C]: the point forecast (median with quantiles)
  torch::Tensor quantiles;     // float64 [horizon, C, Q]; undefined without quantiles
  std::vector<double> levels;  // Q, ascending
};

/// Rows up to the last one with an observed target; those behind it are the known future.
int64_t observed_rows(const SeriesSchema& schema, const Series& series);

/// Forecasts the `horizon` steps after the last observed row of `series` (0: the model's own
/// horizon). Beyond the model's horizon its output is fed back, which needs a series without
/// covariates. Trailing rows without a single target value are the known future of the covariates.
Forecast forecast(Model& model, const SeriesSchema& schema, const Series& series,
                  int64_t horizon = 0);

struct BacktestOptions {
  int64_t origins = 0;  // at most so many, the latest; 0: all
  int64_t step = 0;     // rows between origins; 0: the horizon
  int64_t batch_size = 32;
  void fields(Fields& f);
};

struct Backtest {
  std::vector<std::string> names;    // C targets
  std::vector<std::string> origins;  // O labels of each first forecast row
  int64_t trained = 0;               // of these, those within the dates of the training rows
  torch::Tensor origin_mae,
      origin_rmse;  // float64 [O, C], original units; NaN where nothing was observed
  torch::Tensor step_mae, step_rmse;      // float64 [H, C], original units, over all origins
  std::map<std::string, double> metrics;  // the task's metrics, scaled units, over all origins
  Forecast last;                          // the forecast of the latest origin, ...
  torch::Tensor last_actual;              // float64 [H, C] ... and what came
};

/// Forecasts from many origins of `series` in batches and compares with what came.
Backtest backtest(Model& model, const SeriesSchema& schema, const Series& series,
                  const BacktestOptions& options = {});

}  // namespace serpentine
