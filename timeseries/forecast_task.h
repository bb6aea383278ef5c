// The loss and the exact metrics of forecasting.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <torch/types.h>

#include "core/config.h"
#include "core/train/task.h"

namespace serpentine {

struct ForecastTaskOptions {
  std::string loss = "mse";       // of a point forecast
  std::vector<double> quantiles;  // ascending levels; the loss is then the pinball loss
  void fields(Fields& f);
};

/// Metrics, each a mean over observed windows, steps and targets, in float64, whatever the batch
/// size:
///   mse, mae, rmse  of scaled values, as papers report them; of the quantile nearest to the median
///   mase            mean absolute error over the seasonal-naive error on train (Hyndman & Koehler
///   2006);
///                   targets that are constant on train are left out
///   smape           200 |y - f| / (|y| + |f|) in per cent, in the series' own units; 0 where both
///   are 0 pinball, crps   with quantiles: mean pinball loss; twice its integral over the levels
///   (trapezoids) coverage        with quantiles: share of values between the lowest and the
///   highest level
class ForecastTask : public Task {
 public:
  explicit ForecastTask(ForecastTaskOptions options);
  Loss loss(Model& model, const Batch& batch) override;
  void evaluate(Model& model, const Batch& batch) override;
  std::map<std::string, double> metrics() override;
  torch::Tensor sums() const override { return sums_; }
  void set_sums(const torch::Tensor& sums) override { sums_ = sums; }
  std::string monitored() const override { return options_.quantiles.empty() ? "mse" : "pinball"; }

  /// Adds forecasts that were made elsewhere. output: [B, H, C] or [B, H, C, Q].
  void add(const torch::Tensor& output, const Batch& batch);

 private:
  ForecastTaskOptions options_;
  torch::Tensor sums_;  // float64, see kSums in the source
};

/// The index of the level nearest to the median.
int64_t median_level(const std::vector<double>& levels);

/// [.., Q] in ascending order along Q: crossing quantiles are put right (Chernozhukov et al. 2010).
torch::Tensor uncrossed(const torch::Tensor& quantiles);

}  // namespace serpentine
