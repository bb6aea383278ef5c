// The checks of `serpentine selftest`: each compares an operator with a second implementation.
#pragma once

#include <string>
#include <vector>

#include <c10/core/Device.h>
#include <torch/types.h>

namespace serpentine {

/// What one check found; errors are the largest error over the largest expected magnitude.
struct CheckResult {
  std::string name, against;
  int cases = 0;
  double output = 0, gradient = 0;                  // the worst errors
  double output_allowed = 0, gradient_allowed = 0;  // gradient: 0 where there is none
  std::string problem;                              // why nothing could be compared, or ""

  bool ok() const {
    return problem.empty() && output <= output_allowed && gradient <= gradient_allowed;
  }
  /// Takes the error of one tensor in: shapes and what is not finite are problems.
  void compare(const std::string& what, const torch::Tensor& actual, const torch::Tensor& expected,
               bool is_gradient);
};

/// The scan through its orders, in every type, against the definition in float64.
std::vector<CheckResult> check_scan(c10::Device device);
/// The causal convolution against LibTorch's, in float64.
CheckResult check_convolution(c10::Device device, torch::ScalarType type);
/// gather and merge against index_select and index_add.
CheckResult check_rows(c10::Device device);
/// Norms with the fused residual against LibTorch's.
CheckResult check_norms(c10::Device device);
/// Every serialization against what an order promises, position by position.
CheckResult check_orders();

/// How fast the scan is, beside the bound that this device's measured rates give.
struct SpeedResult {
  std::string shape;
  double forward = 0, backward = 0, forward_bound = 0, backward_bound = 0;  // seconds
};
struct Speed {
  double bandwidth = 0, exponentials = 0;  // bytes and exponentials a second
  std::vector<SpeedResult> scans;
};
Speed measure_speed(c10::Device device);

}  // namespace serpentine
