// Analytic gradients against central differences, in double precision.
#pragma once

#include <functional>
#include <vector>

#include "support/close.h"

namespace serpentine::testing {

/// `function` maps the inputs to any number of tensors; every output is weighed with a fixed random
/// cotangent. All inputs are float64 leaves. `tolerance` is relative to the largest numeric
/// gradient.
inline void expect_gradients(
    const std::function<std::vector<torch::Tensor>(const std::vector<torch::Tensor>&)>& function,
    std::vector<torch::Tensor> inputs, double step = 1e-6, double tolerance = 1e-6) {
  std::vector<torch::Tensor> cotangents;
  for (const auto& out : function(inputs)) cotangents.push_back(torch::randn_like(out));
  const auto loss = [&] {
    auto total = torch::zeros({}, torch::kDouble);
    const auto outputs = function(inputs);
    for (size_t i = 0; i < outputs.size(); ++i) total = total + (outputs[i] * cotangents[i]).sum();
    return total;
  };
  for (auto& input : inputs) input.requires_grad_(true);
  const auto analytic = torch::autograd::grad({loss()}, inputs);
  torch::NoGradGuard no_grad;
  for (size_t i = 0; i < inputs.size(); ++i) {
    auto numeric = torch::zeros(inputs[i].sizes(), torch::kDouble);
    auto values = inputs[i].detach().view(-1), slots = numeric.view(-1);  // the leaf's own memory
    for (int64_t j = 0; j < values.numel(); ++j) {
      const double kept = values[j].item<double>();
      values[j].fill_(kept + step);
      const double above = loss().item<double>();
      values[j].fill_(kept - step);
      const double below = loss().item<double>();
      values[j].fill_(kept);
      slots[j].fill_((above - below) / (2 * step));
    }
    EXPECT_TRUE(is_close_max(analytic[i], numeric, tolerance)) << "gradient of input " << i;
  }
}

}  // namespace serpentine::testing
