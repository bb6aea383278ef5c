// Forecasts without parameters: the last season again, and the straight line through a window's
// ends.
//
// Hyndman & Athanasopoulos, "Forecasting: Principles and Practice", 3rd edition, Sections 5.2
// and 5.5 (the spread of the quantiles). Missing values are filled with the last observed one.
#include <torch/torch.h>

#include "core/check.h"
#include "timeseries/timeseries.h"
#include "timeseries/variates.h"

namespace serpentine {
namespace {

struct NaiveOptions : ForecastModelOptions {};

// [B, L, C]: each missing step takes the last observed value before it, or the first after it
torch::Tensor filled(const torch::Tensor& x, const torch::Tensor& mask) {
  if (!mask.defined()) return x;
  const torch::Tensor steps =
      torch::arange(x.size(1), x.options().dtype(torch::kInt64)).view({1, -1, 1});
  const torch::Tensor seen = mask > 0.5;
  const torch::Tensor before =
      std::get<0>(torch::cummax(torch::where(seen, steps, steps.new_full({}, -1)), 1));
  const torch::Tensor first = seen.to(torch::kInt64).argmax(1, true);
  return x.gather(1, torch::where(before < 0, first, before));
}

class NaiveModel : public Model {
 public:
  NaiveModel(const char* who, const NaiveOptions& options) : who_(who), options_(options) {}

  torch::Tensor forward(const Batch& batch) override {
    check_window(who_, batch, options_);
    const int64_t targets = options_.forecast_variates(batch.input.size(2));
    const torch::Tensor mask = batch.get("mask");
    const torch::Tensor x = filled(batch.input.narrow(2, 0, targets),
                                   mask.defined() ? mask.narrow(2, 0, targets) : mask);
    const torch::Tensor steps =
        torch::arange(1, options_.pred_len + 1, x.options()).view({1, -1, 1});
    torch::Tensor spread;
    const torch::Tensor point = predict(x, steps, spread);
    if (options_.quantiles.empty()) return point;
    // normal quantiles around the point
    const torch::Tensor z =
        torch::erfinv(2 * torch::tensor(options_.quantiles, x.options()) - 1) * std::sqrt(2.0);
    return point.unsqueeze(3) + spread.unsqueeze(3) * z;
  }

 protected:
  /// x: [B, L, C], steps: [1, H, 1] from 1 -> [B, H, C], and the deviation at each step.
  virtual torch::Tensor predict(const torch::Tensor& x, const torch::Tensor& steps,
                                torch::Tensor& spread) const = 0;
  const char* who_;
  NaiveOptions options_;
};

class SeasonalNaive : public NaiveModel {
 public:
  explicit SeasonalNaive(const NaiveOptions& options) : NaiveModel("seasonal_naive", options) {
    SERPENTINE_CHECK(options.period <= options.seq_len, "seasonal_naive",
                     "period must be at most seq_len = ", options.seq_len, ", got ",
                     options.period);
  }

 protected:
  torch::Tensor predict(const torch::Tensor& x, const torch::Tensor& steps,
                        torch::Tensor& spread) const override {
    const int64_t length = x.size(1), period = options_.period;
    const torch::Tensor season =
        torch::arange(options_.pred_len, steps.options().dtype(torch::kInt64)).remainder(period);
    const torch::Tensor error = x.slice(1, std::min(period, length - 1)) -
                                x.slice(1, 0, length - std::min(period, length - 1));
    spread = error.square().mean(1, true).sqrt() *
             torch::sqrt(torch::ceil(steps / static_cast<double>(period)));
    return x.index_select(1, season + (length - period));
  }
};

class Drift : public NaiveModel {
 public:
  explicit Drift(const NaiveOptions& options) : NaiveModel("drift", options) {
    SERPENTINE_CHECK(options.seq_len > 1, "drift", "seq_len must be at least 2, got ",
                     options.seq_len);
  }

 protected:
  torch::Tensor predict(const torch::Tensor& x, const torch::Tensor& steps,
                        torch::Tensor& spread) const override {
    const auto gaps = static_cast<double>(x.size(1) - 1);
    const torch::Tensor first = x.slice(1, 0, 1), last = x.slice(1, x.size(1) - 1);
    const torch::Tensor slope = (last - first) / gaps;
    const torch::Tensor error = x.slice(1, 1) - x.slice(1, 0, x.size(1) - 1) - slope;
    spread = error.square().mean(1, true).sqrt() * torch::sqrt(steps * (1 + steps / gaps));
    return last + steps * slope;
  }
};

}  // namespace

void add_naive(Registry<Model>& all) {
  all.add<NaiveOptions>("seasonal_naive", [](const NaiveOptions& options) {
    return std::make_shared<SeasonalNaive>(options);
  });
  all.add<NaiveOptions>(
      "drift", [](const NaiveOptions& options) { return std::make_shared<Drift>(options); });
}

}  // namespace serpentine
