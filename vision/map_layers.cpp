#include "vision/map_layers.h"

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr double kMapLayersSpread = 0.02;  // of initial weights

}  // namespace

MapNorm::MapNorm(const std::string& kind, int64_t channels, double eps) : batch_(kind == "bn") {
  SERPENTINE_CHECK(kind == "ln" || kind == "ln2d" || batch_, "norm_layer",
                   "must be ln, ln2d or bn, got ", kind);
  if (batch_) {
    module_ = torch::nn::BatchNorm2d(torch::nn::BatchNorm2dOptions(channels).eps(eps)).ptr();
  } else {
    module_ = torch::nn::LayerNorm(torch::nn::LayerNormOptions({channels}).eps(eps)).ptr();
  }
}

torch::Tensor MapNorm::forward(const torch::Tensor& map) const {
  if (!batch_) return module_->as<torch::nn::LayerNormImpl>()->forward(map);
  auto* norm = module_->as<torch::nn::BatchNorm2dImpl>();
  return channels_last(norm->forward(channels_first(map)));
}

torch::Tensor activate(const std::string& name, const torch::Tensor& x) {
  if (name == "silu") return torch::silu(x);
  if (name == "gelu") return torch::gelu(x);
  if (name == "relu") return torch::relu(x);
  SERPENTINE_CHECK(name == "sigmoid", "activation", "must be silu, gelu, relu or sigmoid, got ",
                   name);
  return torch::sigmoid(x);
}

MapMlpImpl::MapMlpImpl(int64_t channels, int64_t hidden, const std::string& act, bool gated,
                       double dropout)
    : act_(act), gated_(gated), dropout_(dropout) {
  fc1 = register_module("fc1", torch::nn::Linear(channels, gated ? 2 * hidden : hidden));
  fc2 = register_module("fc2", torch::nn::Linear(hidden, channels));
}

torch::Tensor MapMlpImpl::forward(const torch::Tensor& x) {
  auto wide = fc1(x);
  if (gated_) {
    const auto halves = wide.chunk(2, -1);
    wide = halves[0] * activate(act_, halves[1]);
  } else {
    wide = torch::dropout(activate(act_, wide), dropout_, is_training());
  }
  return torch::dropout(fc2(wide), dropout_, is_training());
}

PatchMergingImpl::PatchMergingImpl(int64_t channels, int64_t out, const std::string& norm,
                                   bool crop)
    : norm_(norm, 4 * channels), crop_(crop) {
  register_module("norm", norm_.module());
  reduction_ = register_module(
      "reduction", torch::nn::Linear(torch::nn::LinearOptions(4 * channels, out).bias(false)));
}

torch::Tensor PatchMergingImpl::forward(const torch::Tensor& map) {
  torch::Tensor x = map;
  const int64_t height = map.size(1), width = map.size(2);
  if (crop_) {
    SERPENTINE_CHECK(height >= 2 && width >= 2, "patch merging",
                     "a map must be at least 2 x 2 to be halved, got ", height, " x ", width);
    x = map.slice(1, 0, height / 2 * 2).slice(2, 0, width / 2 * 2);
  } else if (height % 2 == 1 || width % 2 == 1) {
    x = torch::constant_pad_nd(map, {0, 0, 0, width % 2, 0, height % 2});
  }
  const auto part = [&](int64_t row, int64_t column) {
    return x.slice(1, row, std::nullopt, 2).slice(2, column, std::nullopt, 2);
  };
  return reduction_(
      norm_.forward(torch::cat({part(0, 0), part(1, 0), part(0, 1), part(1, 1)}, -1)));
}

void init_swin_style(torch::nn::Module& model) {
  const torch::NoGradGuard no_grad;
  // without the model itself: it may still be under construction
  for (const auto& module : model.modules(/*include_self=*/false)) {
    if (auto* linear = module->as<torch::nn::LinearImpl>()) {
      torch::nn::init::normal_(linear->weight, 0, kMapLayersSpread);
      linear->weight.clamp_(-2, 2);  // torch's trunc_normal_ cuts at +-2, not at two deviations
      if (linear->bias.defined()) linear->bias.zero_();
    }
  }
}

torch::Tensor resized_embedding(const torch::Tensor& table, int64_t height, int64_t width) {
  if (table.size(2) == height && table.size(3) == width) return table;
  return at::upsample_bicubic2d(table, {height, width}, /*align_corners=*/false);
}

}  // namespace serpentine
