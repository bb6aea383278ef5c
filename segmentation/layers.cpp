#include "segmentation/layers.h"

#include <charconv>
#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/instance_norm.h"

namespace serpentine {
namespace {

Extent shape_of(int64_t first, int64_t second, const Extent& kernel) {
  Extent shape = {first, second};
  shape.insert(shape.end(), kernel.begin(), kernel.end());
  return shape;
}

/// torch's default: kaiming_uniform(a = sqrt 5) and a bias within the same bound.
void default_init(torch::Tensor& weight, torch::Tensor& bias, int64_t fan_in) {
  const torch::NoGradGuard no_grad;
  const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
  weight.uniform_(-bound, bound);
  if (bias.defined()) bias.uniform_(-bound, bound);
}

int64_t volume(const Extent& extent) {
  int64_t product = 1;
  for (const int64_t side : extent) product *= side;
  return product;
}

}  // namespace

Extent parse_extent(const std::string& who, const std::string& text, int64_t dims) {
  Extent extent;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at < end) {
    int64_t value = 0;
    const auto read = std::from_chars(at, end, value);
    const bool fits = read.ec == std::errc() && value > 0 &&
                      (read.ptr == end || (*read.ptr == 'x' && read.ptr + 1 < end));
    SERPENTINE_CHECK(fits, who, "expected numbers like 1x3x3, got '", text, "'");
    extent.push_back(value);
    at = read.ptr == end ? end : read.ptr + 1;
  }
  if (extent.size() == 1) extent.assign(static_cast<size_t>(dims), extent[0]);
  SERPENTINE_CHECK(static_cast<int64_t>(extent.size()) == dims, who, "expected ", dims,
                   " numbers like ", dims == 3 ? "1x3x3" : "3x3", ", got '", text, "'");
  return extent;
}

std::string extent_text(const Extent& extent) {
  std::string text;
  for (const int64_t side : extent) text += (text.empty() ? "" : "x") + std::to_string(side);
  return text;
}

ConvNdImpl::ConvNdImpl(int64_t in, int64_t out, Extent size, Extent step, bool with_bias)
    : kernel(std::move(size)), stride(std::move(step)) {
  for (const int64_t side : kernel) padding.push_back((side - 1) / 2);
  weight = register_parameter("weight", torch::empty(shape_of(out, in, kernel)));
  if (with_bias) bias = register_parameter("bias", torch::empty({out}));
  reset();
}

void ConvNdImpl::reset() { default_init(weight, bias, weight.size(1) * volume(kernel)); }

torch::Tensor ConvNdImpl::forward(const torch::Tensor& x) {
  return kernel.size() == 3 ? torch::conv3d(x, weight, bias, stride, padding)
                            : torch::conv2d(x, weight, bias, stride, padding);
}

ExpandNdImpl::ExpandNdImpl(int64_t in, int64_t out, Extent step, bool with_bias)
    : stride(std::move(step)) {
  weight = register_parameter("weight", torch::empty(shape_of(in, out, stride)));
  if (with_bias) bias = register_parameter("bias", torch::empty({out}));
  default_init(weight, bias, out * volume(stride));
}

torch::Tensor ExpandNdImpl::forward(const torch::Tensor& x) {
  return stride.size() == 3 ? torch::conv_transpose3d(x, weight, bias, stride)
                            : torch::conv_transpose2d(x, weight, bias, stride);
}

InstanceNormImpl::InstanceNormImpl(int64_t channels, double e) : eps(e) {
  weight = register_parameter("weight", torch::ones({channels}));
  bias = register_parameter("bias", torch::zeros({channels}));
}

torch::Tensor InstanceNormImpl::forward(const torch::Tensor& x, double slope) {
  return instance_norm(x, weight, bias, eps, slope);
}

torch::Tensor plain_instance_norm(const torch::Tensor& x, double slope) {
  return instance_norm(x, {}, {}, 1e-5, slope);
}

void he_init(torch::nn::Module& module) {
  const torch::NoGradGuard no_grad;
  for (const auto& part : module.modules(/*include_self=*/false)) {
    torch::Tensor weight, bias;
    if (auto* conv = part->as<ConvNdImpl>()) {
      weight = conv->weight;
      bias = conv->bias;
    } else if (auto* expand = part->as<ExpandNdImpl>()) {
      weight = expand->weight;
      bias = expand->bias;
    } else {
      continue;
    }
    torch::nn::init::kaiming_normal_(weight, kSlope);
    if (bias.defined()) bias.zero_();
  }
}

}  // namespace serpentine
