#include "timeseries/predict.h"

#include <torch/torch.h>

#include "core/check.h"
#include "timeseries/forecast_task.h"

namespace serpentine {

Prediction predict(Model& model, const SeriesSchema& schema, const Batch& batch) {
  const torch::NoGradGuard no_grad;
  const bool training = model.is_training();
  model.eval();
  const auto parameters = model.parameters();
  const torch::Device device =
      parameters.empty() ? torch::Device(torch::kCPU) : parameters.front().device();
  Prediction out;
  out.output = model.forward(batch.to(device)).to(torch::kCPU, torch::kFloat32);
  model.train(training);
  const auto targets = static_cast<int64_t>(schema.targets.size()),
             levels = static_cast<int64_t>(schema.quantiles.size());
  SERPENTINE_CHECK(out.output.dim() == (levels ? 4 : 3) && out.output.size(1) == schema.pred_len &&
                       out.output.size(2) == targets && (!levels || out.output.size(3) == levels),
                   "forecast", "the model's output must be [B, H, C", levels ? ", Q" : "",
                   "] with H = ", schema.pred_len, ", C = ", targets, levels ? ", Q = " : "",
                   levels ? std::to_string(levels) : "", ", got ", out.output.sizes());
  const torch::Tensor mean = torch::tensor(schema.mean, torch::kFloat64).slice(0, 0, targets);
  const torch::Tensor std = torch::tensor(schema.std, torch::kFloat64).slice(0, 0, targets);
  out.values = out.output.to(torch::kFloat64);
  if (levels) {
    out.quantiles = uncrossed(out.values * std.unsqueeze(1) + mean.unsqueeze(1));
    out.values = out.quantiles.select(3, median_level(schema.quantiles));
  } else {
    out.values = out.values * std + mean;
  }
  return out;
}

torch::Tensor target_values(const SeriesSchema& schema, const Series& series) {
  std::vector<int64_t> columns;
  for (const auto& name : schema.targets) columns.push_back(series.column(name));
  return series.values.index_select(1, torch::tensor(columns, torch::kInt64));
}

}  // namespace serpentine
