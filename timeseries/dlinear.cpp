// DLinear: a window's moving average and the rest, each through one linear layer that all variates
// share.
//
// Zeng et al., "Are Transformers Effective for Time Series Forecasting?", arXiv 2205.13504,
// Section 4. Covariates are not used. differs: quantiles are further outputs of the two layers.
#include <torch/torch.h>

#include "timeseries/timeseries.h"
#include "timeseries/variates.h"

namespace serpentine {
namespace {

struct DLinearOptions : ForecastModelOptions {
  int64_t kernel = 25;    // width of the moving average
  bool use_norm = false;  // centre and scale each window by itself

  void fields(Fields& f) {
    ForecastModelOptions::fields(f);
    f("kernel", kernel, "width of the moving average", {.least = 1});
    f("use_norm", use_norm, "centre and scale each window by itself");
  }
};

class DLinear : public Model {
 public:
  explicit DLinear(const DLinearOptions& options) : options_(options) {
    const int64_t outputs = options.pred_len * options.outputs();
    seasonal_ = register_module("Linear_Seasonal", torch::nn::Linear(options.seq_len, outputs));
    trend_ = register_module("Linear_Trend", torch::nn::Linear(options.seq_len, outputs));
  }

  torch::Tensor forward(const Batch& batch) override {
    check_window("dlinear", batch, options_);
    WindowStats stats;
    torch::Tensor x =
        options_.use_norm ? normalised(batch.input, batch.get("mask"), stats) : batch.input;
    x = x.narrow(2, 0, options_.forecast_variates(x.size(2))).transpose(1, 2);
    // the window's ends are repeated, so that the average keeps its length
    const int64_t left = (options_.kernel - 1) / 2, right = options_.kernel - 1 - left;
    const torch::Tensor trend =
        torch::avg_pool1d(torch::replication_pad1d(x, {left, right}), options_.kernel, 1);
    const torch::Tensor output = options_.to_output(seasonal_(x - trend) + trend_(trend));
    return options_.use_norm ? denormalised(output, stats) : output;
  }

 private:
  DLinearOptions options_;
  torch::nn::Linear seasonal_{nullptr}, trend_{nullptr};
};

}  // namespace

void add_dlinear(Registry<Model>& all) {
  all.add<DLinearOptions>(
      "dlinear", [](const DLinearOptions& options) { return std::make_shared<DLinear>(options); });
}

}  // namespace serpentine
