#include "timeseries/forecast_task.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <torch/torch.h>

#include "core/check.h"
#include "timeseries/timeseries.h"

namespace serpentine {
namespace {

enum Sum {
  kCount,
  kSquared,
  kAbsolute,
  kScaled,
  kScaledCount,
  kSymmetric,
  kInside,
  kSums
};  // then one pinball sum a level

// loss of each element and level: max(q e, (q - 1) e), e = value - forecast; Koenker & Bassett 1978
torch::Tensor pinball(const torch::Tensor& output, const torch::Tensor& target,
                      const std::vector<double>& quantiles) {
  const torch::Tensor levels = torch::tensor(quantiles, output.options());
  const torch::Tensor error = target.unsqueeze(3) - output;
  return torch::maximum(levels * error, (levels - 1) * error);
}

// mean over observed elements; `mask` [B, H, C] may be undefined
Loss masked_mean(torch::Tensor elements, const torch::Tensor& mask) {
  if (!mask.defined()) return {elements.mean(), elements.numel()};
  const torch::Tensor weights = elements.dim() == 4 ? mask.unsqueeze(3).expand_as(elements) : mask;
  const torch::Tensor count = weights.sum();
  return {(elements * weights).sum() / count.clamp_min(1), count.item<int64_t>()};
}

}  // namespace

int64_t median_level(const std::vector<double>& levels) {
  const auto nearer = [](double a, double b) { return std::abs(a - 0.5) < std::abs(b - 0.5); };
  return std::min_element(levels.begin(), levels.end(), nearer) - levels.begin();
}

torch::Tensor uncrossed(const torch::Tensor& quantiles) { return std::get<0>(quantiles.sort(-1)); }

void ForecastTaskOptions::fields(Fields& f) {
  f("loss", loss, "of a point forecast", {.choices = {"mse", "mae", "huber"}});
  f("quantiles", quantiles, "ascending levels to forecast, as [0.1, 0.5, 0.9]; empty: a point",
    {.least = 0.001, .most = 0.999});
}

ForecastTask::ForecastTask(ForecastTaskOptions options) : options_(std::move(options)) {
  const auto& levels = options_.quantiles;
  for (size_t i = 1; i < levels.size(); ++i) {
    SERPENTINE_CHECK(levels[i] > levels[i - 1], "forecast", "quantiles must ascend, got ",
                     levels[i], " after ", levels[i - 1]);
  }
  sums_ = torch::zeros({static_cast<int64_t>(kSums + levels.size())}, torch::kFloat64);
}

Loss ForecastTask::loss(Model& model, const Batch& batch) {
  const torch::Tensor output = model.forward(batch).to(torch::kFloat32),
                      mask = batch.get("target_mask");
  if (!options_.quantiles.empty())
    return masked_mean(pinball(output, batch.target, options_.quantiles), mask);
  SERPENTINE_CHECK(output.sizes() == batch.target.sizes(), "forecast",
                   "the model's output must be [B, H, C] = ", batch.target.sizes(), ", got ",
                   output.sizes());
  if (!mask.defined() && options_.loss == "mse")
    return {torch::mse_loss(output, batch.target), output.numel()};
  const torch::Tensor error = output - batch.target;
  if (options_.loss == "mse") return masked_mean(error.square(), mask);
  if (options_.loss == "mae") return masked_mean(error.abs(), mask);
  return masked_mean(torch::huber_loss(output, batch.target, at::Reduction::None), mask);
}

void ForecastTask::evaluate(Model& model, const Batch& batch) { add(model.forward(batch), batch); }

void ForecastTask::add(const torch::Tensor& output, const Batch& batch) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor target = batch.target.to(torch::kFloat64);
  torch::Tensor forecast = output.to(torch::kFloat64), mask = batch.get("target_mask");
  mask = mask.defined() ? mask.to(torch::kFloat64) : torch::ones_like(target);
  std::vector<torch::Tensor> sums(kSums);
  torch::Tensor losses = torch::empty({0}, target.options());
  sums[kInside] = torch::zeros({}, target.options());
  if (!options_.quantiles.empty()) {
    const torch::Tensor levels = uncrossed(forecast);
    losses = (pinball(levels, target, options_.quantiles) * mask.unsqueeze(3))
                 .sum(at::IntArrayRef{0, 1, 2});
    sums[kInside] =
        (mask * (target >= levels.select(3, 0)) * (target <= levels.select(3, levels.size(3) - 1)))
            .sum();
    forecast = levels.select(3, median_level(options_.quantiles));
  }
  const torch::Tensor error = (forecast - target) * mask, absolute = error.abs();
  const torch::Tensor scale = batch.get("scale").to(torch::kFloat64).unsqueeze(2);  // [B, 3, 1, C]
  const torch::Tensor mean = scale.select(1, 0), std = scale.select(1, 1),
                      naive = scale.select(1, 2);
  const torch::Tensor varied = mask * (naive > 0);
  const torch::Tensor size = (target * std + mean).abs() + (forecast * std + mean).abs();
  sums[kCount] = mask.sum();
  sums[kSquared] = error.square().sum();
  sums[kAbsolute] = absolute.sum();
  sums[kScaled] = (absolute * varied / naive.clamp_min(std::numeric_limits<double>::min())).sum();
  sums[kScaledCount] = varied.sum();
  sums[kSymmetric] =
      torch::where(size > 0, 200 * absolute * std / size, torch::zeros_like(size)).sum();
  sums_ = sums_.to(target.device()) + torch::cat({torch::stack(sums), losses});
}

std::map<std::string, double> ForecastTask::metrics() {
  const torch::Tensor cpu = sums_.to(torch::kCPU).contiguous();
  const double* sum = cpu.data_ptr<double>();
  const double count = sum[kCount];
  std::map<std::string, double> out = {{"mse", sum[kSquared] / count},
                                       {"mae", sum[kAbsolute] / count},
                                       {"rmse", std::sqrt(sum[kSquared] / count)},
                                       {"mase", sum[kScaled] / sum[kScaledCount]},
                                       {"smape", sum[kSymmetric] / count}};
  const auto& levels = options_.quantiles;
  if (!levels.empty()) {
    double mean = 0, integral = 0;
    for (size_t i = 0; i < levels.size(); ++i) {
      const double loss = sum[kSums + i] / count;
      mean += loss / static_cast<double>(levels.size());
      // a level stands for the stretch half-way to its neighbours; the loss is 0 at levels 0 and 1
      const double below = i == 0 ? 0 : levels[i - 1],
                   above = i + 1 == levels.size() ? 1 : levels[i + 1];
      integral += loss * (above - below) / 2;
    }
    out["pinball"] = mean;
    out["crps"] = 2 * integral;
    out["coverage"] = sum[kInside] / count;
  }
  sums_ = torch::zeros_like(cpu);
  return out;
}

void add_forecast_tasks(Registry<Task>& all) {
  all.add<ForecastTaskOptions>("forecast", [](const ForecastTaskOptions& options) {
    return std::make_shared<ForecastTask>(options);
  });
}

}  // namespace serpentine
