// A regression small enough to train a thousand times: two layers with dropout, a loss with a mask.
#pragma once

#include <map>
#include <memory>
#include <string>

#include <torch/torch.h>

#include "core/data/dataset.h"
#include "core/train/task.h"

namespace serpentine::toy {

/// Example i is a function of i only; `target` holds NaN where nothing was measured (one in three).
class Points : public Dataset {
 public:
  explicit Points(int64_t size) : size_(size) {}
  int64_t size() const override { return size_; }
  Batch get(int64_t index) const override {
    const torch::Tensor x =
        torch::sin(torch::arange(8, torch::kFloat32) * static_cast<double>(index + 1) * 0.37);
    torch::Tensor y = torch::stack({x.sum(), x[0] * x[1], x[2] - x[3]});
    if (index % 3 == 0) y[1] = NAN;
    Batch batch;
    batch.input = x;
    batch.target = y;
    return batch;
  }

 private:
  int64_t size_;
};

class Net : public Model {
 public:
  explicit Net(double dropout, int64_t width = 16) {
    first = register_module("first", torch::nn::Linear(8, width));
    drop = register_module("drop", torch::nn::Dropout(dropout));
    norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({width})));
    last = register_module("last", torch::nn::Linear(width, 3));
    unused = register_module("unused", torch::nn::Linear(2, 2));  // never has a gradient
  }
  torch::Tensor forward(const Batch& batch) override {
    torch::Tensor h = norm(drop(torch::relu(first(batch.input))));
    if (root) h = torch::sqrt(h);  // NaN for negative values
    return last(h);
  }
  torch::nn::Linear first{nullptr}, last{nullptr}, unused{nullptr};
  torch::nn::Dropout drop{nullptr};
  torch::nn::LayerNorm norm{nullptr};
  bool root = false;
};

/// Mean squared error over what was measured; the count differs from batch to batch.
class Squares : public Task {
 public:
  Loss loss(Model& model, const Batch& batch) override {
    const auto [sum, count] = squares(model, batch);
    return {sum / static_cast<double>(count), count};
  }
  void evaluate(Model& model, const Batch& batch) override {
    const auto [sum, count] = squares(model, batch);
    sum_ += sum.item<double>();
    count_ += static_cast<double>(count);
  }
  std::map<std::string, double> metrics() override {
    const std::map<std::string, double> out = {{"mse", sum_ / count_}, {"seen", count_}};
    sum_ = count_ = 0;
    return out;
  }
  torch::Tensor sums() const override { return torch::tensor({sum_, count_}, torch::kFloat64); }
  void set_sums(const torch::Tensor& sums) override {
    sum_ = sums[0].item<double>();
    count_ = sums[1].item<double>();
  }
  std::string monitored() const override { return "mse"; }

 private:
  static std::pair<torch::Tensor, int64_t> squares(Model& model, const Batch& batch) {
    const torch::Tensor seen = torch::isfinite(batch.target);
    const torch::Tensor error =
        model.forward(batch).to(torch::kFloat32) - torch::nan_to_num(batch.target);
    return {torch::where(seen, error * error, 0).sum(), seen.sum().item<int64_t>()};
  }
  double sum_ = 0, count_ = 0;
};

}  // namespace serpentine::toy
