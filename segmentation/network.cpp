#include "segmentation/network.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

std::vector<Extent> extents(const std::string& who, const std::vector<std::string>& texts,
                            const char* name, int64_t stages, int64_t dims) {
  SERPENTINE_CHECK(static_cast<int64_t>(texts.size()) == stages, who, name, " needs ", stages,
                   " entries, one a stage, got ", texts.size());
  std::vector<Extent> all;
  for (const auto& text : texts) all.push_back(parse_extent(who + ": " + name, text, dims));
  return all;
}

std::vector<int64_t> counts(const std::string& who, std::vector<int64_t> given, const char* name,
                            int64_t stages, int64_t fallback) {
  if (given.empty()) given.assign(static_cast<size_t>(stages), fallback);
  SERPENTINE_CHECK(static_cast<int64_t>(given.size()) == stages, who, name, " needs ", stages,
                   " entries, got ", given.size());
  return given;
}

}  // namespace

std::vector<double> ScaledModel::scale_weights(size_t count) const {
  std::vector<double> weights;
  for (size_t s = 0; s < count; ++s)
    weights.push_back(s > 0 && s + 1 == count ? 0 : std::pow(0.5, static_cast<double>(s)));
  return weights;
}

void UOptions::fields(Fields& f) {
  f("dims", dims, "2 for images, 3 for volumes", {.least = 2, .most = 3});
  f("in_channels", in_channels, "channels (modalities) of the input", {.least = 1});
  f("classes", classes, "channels of the output", {.least = 1});
  f("features", features, "channels of each stage, the finest first", {.least = 1});
  f("kernels", kernels, "kernel of each stage, as 1x3x3; default 3 everywhere");
  f("strides", strides, "stride at each stage's begin, as 1x2x2; default 1, then 2");
  f("convs", convs, "blocks of each encoder stage", {.least = 1});
  f("decoder_convs", decoder_convs, "blocks of each decoder stage, the coarsest first",
    {.least = 1});
  f("conv_bias", conv_bias, "biases of the convolutions");
  f("deep_supervision", deep_supervision, "train the coarser outputs of the decoder too");
}

UPlan plan_of(const std::string& who, const UOptions& options, int64_t default_convs,
              int64_t default_decoder_convs) {
  UPlan plan;
  plan.dims = options.dims;
  plan.stages = options.stages();
  plan.features = options.features;
  SERPENTINE_CHECK(plan.stages >= 2, who, "features needs at least 2 stages, got ", plan.stages);
  auto kernels = options.kernels, strides = options.strides;
  if (kernels.empty()) kernels.assign(static_cast<size_t>(plan.stages), "3");
  if (strides.empty()) {
    strides.assign(static_cast<size_t>(plan.stages), "2");
    strides[0] = "1";
  }
  plan.kernels = extents(who, kernels, "kernels", plan.stages, plan.dims);
  plan.strides = extents(who, strides, "strides", plan.stages, plan.dims);
  for (const auto& kernel : plan.kernels) {
    for (const int64_t side : kernel)
      SERPENTINE_CHECK(side % 2 == 1, who, "kernels must be odd, got ", extent_text(kernel));
  }
  plan.convs = counts(who, options.convs, "convs", plan.stages, default_convs);
  plan.decoder_convs =
      counts(who, options.decoder_convs, "decoder_convs", plan.stages - 1, default_decoder_convs);
  return plan;
}

void check_input(const char* who, const torch::Tensor& x, const UPlan& plan, int64_t channels) {
  SERPENTINE_CHECK(x.dim() == plan.dims + 2 && x.size(1) == channels, who, "the input must be [B, ",
                   channels, plan.dims == 3 ? ", D, H, W]" : ", H, W]", ", got ", x.sizes());
  Extent multiple(static_cast<size_t>(plan.dims), 1);
  for (const auto& stride : plan.strides) {
    for (size_t axis = 0; axis < stride.size(); ++axis) multiple[axis] *= stride[axis];
  }
  for (int64_t axis = 0; axis < plan.dims; ++axis) {
    SERPENTINE_CHECK(x.size(axis + 2) % multiple[static_cast<size_t>(axis)] == 0, who,
                     "the input's size must be a multiple of ", extent_text(multiple), ", got ",
                     x.sizes().slice(2));
  }
}

ConvUnitImpl::ConvUnitImpl(int64_t in, int64_t out, const Extent& kernel, const Extent& stride,
                           bool bias, bool active)
    : active_(active) {
  conv_ = register_module("conv", ConvNd(in, out, kernel, stride, bias));
  norm_ = register_module("norm", InstanceNorm(out));
}

torch::Tensor ConvUnitImpl::forward(const torch::Tensor& x) {
  return norm_(conv_(x), active_ ? kSlope : 1);
}

BasicBlockImpl::BasicBlockImpl(int64_t in, int64_t out, const Extent& kernel, const Extent& stride,
                               bool bias) {
  const Extent one(kernel.size(), 1);
  conv1_ = register_module("conv1", ConvUnit(in, out, kernel, stride, bias));
  conv2_ = register_module("conv2", ConvUnit(out, out, kernel, one, bias, false));
  if (stride != one) pool_ = stride;
  if (in == out) return;
  projection_ = ConvUnit(in, out, one, one, false, false);
  const auto skip = std::make_shared<torch::nn::Module>();
  skip->register_module(pool_.empty() ? "0" : "1", projection_.ptr());
  register_module("skip", skip);
}

torch::Tensor BasicBlockImpl::forward(const torch::Tensor& x) {
  torch::Tensor shortcut = x;
  if (!pool_.empty()) {
    shortcut = pool_.size() == 3 ? torch::avg_pool3d(shortcut, pool_, pool_)
                                 : torch::avg_pool2d(shortcut, pool_, pool_);
  }
  if (projection_) shortcut = projection_(shortcut);
  return torch::leaky_relu(conv2_(conv1_(x)) + shortcut, kSlope);
}

std::vector<std::pair<std::string, std::string>> unit_aliases() {
  return {{"^decoder.encoder.", "encoder."},
          {".all_modules.0.", ".conv."},
          {".all_modules.1.", ".norm."}};
}

}  // namespace serpentine
