#include "timeseries/variates.h"

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {

void ForecastModelOptions::fields(Fields& f) {
  f("seq_len", seq_len, "rows that the model reads; from data", {.least = 1});
  f("pred_len", pred_len, "rows that it forecasts; from data", {.least = 1});
  f("targets", targets, "variates to forecast, the first of the input; 0: all; from data",
    {.least = 0});
  f("future", future, "known-future variates; from data", {.least = 0});
  f("masked", masked, "whether the model reads which values are missing; from data");
  f("period", period, "rows of a season; from data", {.least = 1});
  f("quantiles", quantiles, "levels to forecast; empty: one point; from task",
    {.least = 0, .most = 1});
}

torch::Tensor ForecastModelOptions::to_output(const torch::Tensor& projected) const {
  if (quantiles.empty()) return projected.transpose(1, 2);
  return projected.unflatten(2, {pred_len, outputs()}).transpose(1, 2);
}

void check_window(const char* who, const Batch& batch, const ForecastModelOptions& options) {
  check_shape(who, batch.input, "input", {-1, options.seq_len, -1}, "B, L, N");
  const int64_t rows = batch.input.size(0), variates = batch.input.size(2);
  SERPENTINE_CHECK(options.targets <= variates, who, "input must hold the ", options.targets,
                   " targets first, got ", variates, " variates");
  if (batch.get("mask").defined())
    check_shape(who, batch.get("mask"), "mask", {rows, options.seq_len, variates}, "B, L, N");
  for (const char* name : {"marks", "extra", "elapsed"}) {
    if (batch.get(name).defined())
      check_shape(who, batch.get(name), name, {rows, options.seq_len, -1}, "B, L, M");
  }
  if (options.future > 0) {
    check_shape(who, batch.get("future"), "future",
                {rows, options.seq_len + options.pred_len, options.future}, "B, L + H, F");
  }
}

torch::Tensor normalised(const torch::Tensor& x, const torch::Tensor& mask, WindowStats& stats) {
  constexpr double kEpsilon = 1e-5;
  if (!mask.defined()) {
    stats.mean = x.mean(1, true).detach();
    const torch::Tensor centred = x - stats.mean;
    stats.std = torch::sqrt(
        torch::var(centred, at::IntArrayRef{1}, /*unbiased=*/false, /*keepdim=*/true) + kEpsilon);
    return centred / stats.std;
  }
  const torch::Tensor count = mask.sum(1, true).clamp_min(1);
  stats.mean = ((x * mask).sum(1, true) / count).detach();
  const torch::Tensor centred = (x - stats.mean) * mask;
  stats.std = torch::sqrt(centred.square().sum(1, true) / count + kEpsilon);
  return centred / stats.std;
}

torch::Tensor denormalised(const torch::Tensor& y, const WindowStats& stats) {
  torch::Tensor mean = stats.mean.slice(2, 0, y.size(2)), std = stats.std.slice(2, 0, y.size(2));
  if (y.dim() == 4) {
    mean = mean.unsqueeze(3);
    std = std.unsqueeze(3);
  }
  return torch::addcmul(mean, y, std);
}

}  // namespace serpentine
