// What forecasting models share: their common options, and each window's own mean and deviation.
#pragma once

#include <cstdint>
#include <vector>

#include <torch/types.h>

#include "core/config.h"
#include "core/data/dataset.h"

namespace serpentine {

/// Filled from the data section; L = seq_len, H = pred_len, C targets, F known-future variates.
struct ForecastModelOptions {
  int64_t seq_len = 96, pred_len = 96;
  int64_t targets = 0, future = 0, period = 24;
  bool masked = false;
  std::vector<double> quantiles;  // Q levels; empty: one point, and outputs have no quantile axis
  void fields(Fields& f);

  int64_t outputs() const { return quantiles.empty() ? 1 : static_cast<int64_t>(quantiles.size()); }
  /// The number of forecast variates of an input with `variates`.
  int64_t forecast_variates(int64_t variates) const { return targets > 0 ? targets : variates; }
  /// [B, C, H * Q] -> [B, H, C] or [B, H, C, Q].
  torch::Tensor to_output(const torch::Tensor& projected) const;
};

/// Checks input [B, L, N] and the named tensors that go with it; throws with the shapes.
void check_window(const char* who, const Batch& batch, const ForecastModelOptions& options);

/// A window's mean and deviation, [B, 1, N] each. The mean carries no gradient, the deviation does.
struct WindowStats {
  torch::Tensor mean, std;
};

/// Centres and scales `x` [B, L, N] over the observed steps (all without a mask); missing steps
/// stay 0. Non-stationary Transformers, arXiv 2205.14415, as iTransformer uses it: std =
/// sqrt(variance + 1e-5).
torch::Tensor normalised(const torch::Tensor& x, const torch::Tensor& mask, WindowStats& stats);

/// Undoes `normalised` on an output [B, H, C] or [B, H, C, Q] of the first C variates.
torch::Tensor denormalised(const torch::Tensor& y, const WindowStats& stats);

}  // namespace serpentine
