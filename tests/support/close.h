// Comparing tensors in tests: two measures of error, one report.
#pragma once

#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace serpentine::testing {

/// How far `actual` is from `expected`; both measures are relative to the expected tensor.
struct Difference {
  double rms = 0;       // root mean square of the error / root mean square of expected
  double max = 0;       // largest error / largest magnitude of expected
  std::string problem;  // why the two cannot be compared: shape, missing, NaN; empty if they can
  std::string worst;    // the worst element, with its index
};

inline std::string index_text(int64_t flat, at::IntArrayRef sizes) {
  std::vector<int64_t> index(sizes.size());
  for (size_t axis = sizes.size(); axis-- > 0;) {
    index[axis] = flat % sizes[axis];
    flat /= sizes[axis];
  }
  std::ostringstream text;
  text << at::IntArrayRef(index);
  return text.str();
}

inline Difference difference(const torch::Tensor& actual, const torch::Tensor& expected) {
  Difference result;
  if (!actual.defined() || !expected.defined()) {
    result.problem =
        actual.defined() ? "the expected tensor is undefined" : "the tensor is undefined";
    return result;
  }
  if (actual.sizes() != expected.sizes()) {
    std::ostringstream text;
    text << "the shape is " << actual.sizes() << ", expected " << expected.sizes();
    result.problem = text.str();
    return result;
  }
  if (expected.numel() == 0) return result;
  const auto a = actual.detach().to(torch::kCPU, torch::kDouble).contiguous();
  const auto e = expected.detach().to(torch::kCPU, torch::kDouble).contiguous();
  if (!torch::isfinite(a).equal(torch::isfinite(e))) {
    const auto wrong = torch::isfinite(a).ne(torch::isfinite(e)).flatten().to(torch::kInt);
    result.problem = "not finite at " + index_text(wrong.argmax().item<int64_t>(), a.sizes());
    return result;
  }
  const auto error = (a - e).abs().nan_to_num(0, 0, 0).flatten();
  const auto place = error.argmax().item<int64_t>();

  // an all-zero expectation is compared absolutely
  const auto magnitude = e.abs().nan_to_num(0, 0, 0);
  const double largest = magnitude.max().item<double>(),
               rms = std::sqrt(magnitude.square().mean().item<double>());
  result.max = error[place].item<double>() / (largest > 0 ? largest : 1);
  result.rms = std::sqrt(error.square().mean().item<double>()) / (rms > 0 ? rms : 1);
  std::ostringstream text;
  text << "worst at " << index_text(place, a.sizes()) << ": " << a.flatten()[place].item<double>()
       << ", expected " << e.flatten()[place].item<double>();
  result.worst = text.str();
  return result;
}

inline ::testing::AssertionResult judge(const Difference& found, double measure, double tolerance,
                                        const char* unit) {
  if (!found.problem.empty()) return ::testing::AssertionFailure() << found.problem;
  if (measure <= tolerance) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << unit << " " << measure << " exceeds " << tolerance << "; " << found.worst;
}

/// Relative root mean square error at most `tolerance`; NaN, infinities and shapes are looked at
/// first.
inline ::testing::AssertionResult is_close(const torch::Tensor& actual,
                                           const torch::Tensor& expected, double tolerance) {
  const auto found = difference(actual, expected);
  return judge(found, found.rms, tolerance, "relative RMS error");
}

/// Largest error at most `tolerance` times the largest magnitude of `expected`.
inline ::testing::AssertionResult is_close_max(const torch::Tensor& actual,
                                               const torch::Tensor& expected, double tolerance) {
  const auto found = difference(actual, expected);
  return judge(found, found.max, tolerance, "error relative to the largest magnitude");
}

inline void expect_close(const torch::Tensor& actual, const torch::Tensor& expected,
                         double tolerance, const std::string& what = "") {
  EXPECT_TRUE(is_close(actual, expected, tolerance)) << what;
}

/// Bit for bit, dtype included.
inline void expect_equal(const torch::Tensor& actual, const torch::Tensor& expected,
                         const std::string& what = "") {
  ASSERT_EQ(actual.dtype(), expected.dtype()) << what;
  EXPECT_TRUE(torch::equal(actual, expected))
      << what << ": " << is_close_max(actual, expected, 0).message();
}

}  // namespace serpentine::testing
