// UPerNet: a pyramid head on any image classifier's maps, with an auxiliary head for training.
//
// Xiao et al., arXiv 1807.10221, Figure 4; pooling module: Zhao et al., arXiv 1612.01105. Keys:
// mmsegmentation's backbone.*, decode_head.*, auxiliary_head.*.
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/registry.h"
#include "segmentation/network.h"
#include "segmentation/segmentation.h"
#include "vision/image_model.h"
#include "vision/vision.h"

namespace serpentine {
namespace {

using torch::Tensor;
using torch::nn::Module;
constexpr int64_t kPools[] = {1, 2, 3, 6};

struct UperNetOptions {
  int64_t in_channels = 3, classes = 2, channels = 512, auxiliary_channels = 256;
  double dropout = 0.1, auxiliary = 0.4;
  Config backbone;
  void fields(Fields& f) {
    f("in_channels", in_channels, "channels of the input", {.least = 1});
    f("classes", classes, "channels of the output", {.least = 1});
    f("channels", channels, "channels of the pyramid", {.least = 1});
    f("auxiliary_channels", auxiliary_channels, "channels of the auxiliary head", {.least = 1});
    f("dropout", dropout, "probability that a channel is dropped before the classes",
      {.least = 0, .most = 0.99});
    f("auxiliary", auxiliary, "weight of the auxiliary head's loss; 0: no such head", {.least = 0});
    f.nested("backbone", backbone, "an image classifier whose maps are read", "model",
             {.required = true});
  }
};

Tensor resized(const Tensor& x, const Tensor& like) {
  namespace F = torch::nn::functional;
  return F::interpolate(x, F::InterpolateFuncOptions()
                               .size(std::vector<int64_t>{like.size(2), like.size(3)})
                               .mode(torch::kBilinear)
                               .align_corners(false));
}

/// Convolution without bias, batch norm, ReLU. Keys conv, bn.
class ConvModuleImpl : public Module {
 public:
  ConvModuleImpl(int64_t in, int64_t out, int64_t kernel) {
    conv_ = register_module(
        "conv", torch::nn::Conv2d(
                    torch::nn::Conv2dOptions(in, out, kernel).padding(kernel / 2).bias(false)));
    bn_ = register_module("bn", torch::nn::BatchNorm2d(out));
  }
  Tensor forward(const Tensor& x) { return torch::relu(bn_(conv_(x))); }

 private:
  torch::nn::Conv2d conv_{nullptr};
  torch::nn::BatchNorm2d bn_{nullptr};
};
TORCH_MODULE(ConvModule);

class PyramidHeadImpl : public Module {
 public:
  PyramidHeadImpl(const std::vector<int64_t>& in, const UperNetOptions& options) {
    const int64_t width = options.channels;
    const auto pools = std::make_shared<Module>(), laterals = std::make_shared<Module>(),
               smooths = std::make_shared<Module>();
    for (size_t i = 0; i < std::size(kPools); ++i) {
      const auto holder = std::make_shared<Module>();  // index 0 is the pooling itself
      pools_.push_back(holder->register_module("1", ConvModule(in.back(), width, 1)));
      pools->register_module(std::to_string(i), holder);
    }
    register_module("psp_modules", pools);
    const auto pooled = in.back() + static_cast<int64_t>(std::size(kPools)) * width;
    bottom_ = register_module("bottleneck", ConvModule(pooled, width, 3));
    for (size_t i = 0; i + 1 < in.size(); ++i) {
      laterals_.push_back(
          laterals->register_module(std::to_string(i), ConvModule(in[i], width, 1)));
      smooths_.push_back(smooths->register_module(std::to_string(i), ConvModule(width, width, 3)));
    }
    register_module("lateral_convs", laterals);
    register_module("fpn_convs", smooths);
    const auto stages = static_cast<int64_t>(in.size());
    join_ = register_module("fpn_bottleneck", ConvModule(stages * width, width, 3));
    classes_ = register_module(
        "conv_seg", torch::nn::Conv2d(torch::nn::Conv2dOptions(width, options.classes, 1)));
    drop_ = torch::nn::Dropout2d(options.dropout);
    register_module("dropout", drop_);
  }

  Tensor forward(const std::vector<Tensor>& maps) {
    std::vector<Tensor> pooled = {maps.back()};
    for (size_t i = 0; i < pools_.size(); ++i) {
      const auto small = torch::adaptive_avg_pool2d(maps.back(), {kPools[i], kPools[i]});
      pooled.push_back(resized(pools_[i](small), maps.back()));
    }
    std::vector<Tensor> levels;
    for (size_t i = 0; i < laterals_.size(); ++i) levels.push_back(laterals_[i](maps[i]));
    levels.push_back(bottom_(torch::cat(pooled, 1)));
    for (size_t i = levels.size() - 1; i > 0; --i)
      levels[i - 1] = levels[i - 1] + resized(levels[i], levels[i - 1]);
    for (size_t i = 0; i < smooths_.size(); ++i) levels[i] = smooths_[i](levels[i]);
    for (size_t i = 1; i < levels.size(); ++i) levels[i] = resized(levels[i], levels[0]);
    return classes_(drop_(join_(torch::cat(levels, 1))));
  }

 private:
  std::vector<ConvModule> pools_, laterals_, smooths_;
  ConvModule bottom_{nullptr}, join_{nullptr};
  torch::nn::Conv2d classes_{nullptr};
  torch::nn::Dropout2d drop_{nullptr};
};
TORCH_MODULE(PyramidHead);

class PlainHeadImpl : public Module {
 public:
  PlainHeadImpl(int64_t in, const UperNetOptions& options) {
    const auto convs = std::make_shared<Module>();
    conv_ = convs->register_module("0", ConvModule(in, options.auxiliary_channels, 3));
    register_module("convs", convs);
    classes_ = register_module("conv_seg", torch::nn::Conv2d(torch::nn::Conv2dOptions(
                                               options.auxiliary_channels, options.classes, 1)));
  }
  Tensor forward(const Tensor& map) { return classes_(conv_(map)); }

 private:
  ConvModule conv_{nullptr};
  torch::nn::Conv2d classes_{nullptr};
};
TORCH_MODULE(PlainHead);

class UperNet : public ScaledModel {
 public:
  UperNet(const UperNetOptions& options, std::shared_ptr<ImageModel> backbone)
      : options_(options), backbone_(std::move(backbone)) {
    register_module("backbone", backbone_);
    const auto widths = backbone_->map_channels();
    SERPENTINE_CHECK(widths.size() >= 2, "upernet", "the backbone must give at least 2 maps, got ",
                     widths.size());
    head_ = register_module("decode_head", PyramidHead(widths, options));
    if (options.auxiliary > 0) {
      auxiliary_ = register_module("auxiliary_head", PlainHead(widths[widths.size() - 2], options));
    }
  }

  Tensor forward(const Batch& batch) override {
    return resized(head_(backbone_->forward_maps(batch.input)), batch.input);
  }
  std::vector<Tensor> scales(const Batch& batch) override {
    const auto maps = backbone_->forward_maps(batch.input);
    std::vector<Tensor> outputs = {resized(head_(maps), batch.input)};
    if (auxiliary_) outputs.push_back(resized(auxiliary_(maps[maps.size() - 2]), batch.input));
    return outputs;
  }
  std::vector<double> scale_weights(size_t count) const override {
    return count > 1 ? std::vector<double>{1, options_.auxiliary} : std::vector<double>{1};
  }
  /// The classifier of the backbone is not used.
  std::vector<std::string> tolerated_keys() const override { return {"decode_head.dropout"}; }

 private:
  UperNetOptions options_;
  std::shared_ptr<ImageModel> backbone_;
  PyramidHead head_{nullptr};
  PlainHead auxiliary_{nullptr};
};

}  // namespace

void add_upernet(Registry<Model>& all) {
  // a registry of its own: `all` may move before a model is built
  const auto backbones = std::make_shared<Registry<Model>>("model");
  add_vision_models(*backbones);
  all.add<UperNetOptions>("upernet", [backbones](const UperNetOptions& options) {
    Config config = options.backbone;
    config.set_default("channels", options.in_channels);
    auto backbone = std::dynamic_pointer_cast<ImageModel>(backbones->build(config));
    if (backbone == nullptr) config.fail("type", "is no image classifier with maps");
    return std::make_shared<UperNet>(options, backbone);
  });
}

}  // namespace serpentine
