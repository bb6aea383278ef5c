// ResNet-18, -34 and -50: the common convolutional baseline and a usual encoder of slide tiles.
//
// He et al., "Deep Residual Learning", arXiv 1512.03385, Table 1; stride on the 3 x 3 convolution
// of a bottleneck. Keys and init as torchvision's models.
#include <torch/torch.h>

#include "core/check.h"
#include "vision/image_model.h"
#include "vision/recompute_block.h"
#include "vision/vision.h"

namespace serpentine {
namespace {

constexpr const char* kResnetWho = "resnet";

struct ResNetOptions : ImageModelOptions {
  std::string size = "18", stem = "imagenet";
  bool head = true;
  void fields(Fields& f) {
    f("size", size, "layers", {.choices = {"18", "34", "50"}});
    ImageModelOptions::fields(f);
    f("stem", stem,
      "imagenet: 7 x 7 convolution and pooling, to a quarter; small: 3 x 3, for "
      "images of 28 to 64 pixels",
      {.choices = {"imagenet", "small"}});
    f("head", head, "false: no classifier, the output is the features (an encoder)");
  }
};

torch::nn::Conv2d conv(int64_t in, int64_t out, int64_t kernel, int64_t stride) {
  return torch::nn::Conv2d(
      torch::nn::Conv2dOptions(in, out, kernel).stride(stride).padding(kernel / 2).bias(false));
}

/// Convolutions with norms, the input (projected, where shapes change) added before the last ReLU.
class ResidualImpl : public torch::nn::Module {
 public:
  ResidualImpl(int64_t in, int64_t width, int64_t stride, bool bottleneck) {
    const int64_t out = bottleneck ? 4 * width : width;
    if (bottleneck) {
      add(in, width, 1, 1);
      add(width, width, 3, stride);
      add(width, out, 1, 1);
    } else {
      add(in, width, 3, stride);
      add(width, out, 3, 1);
    }
    if (stride == 1 && in == out) return;
    downsample_ = torch::nn::Sequential(conv(in, out, 1, stride), torch::nn::BatchNorm2d(out));
    register_module("downsample", downsample_);
  }

  torch::Tensor forward(const torch::Tensor& x) {
    auto y = x;
    for (size_t i = 0; i < convs_.size(); ++i) {
      y = norms_[i](convs_[i](y));
      if (i + 1 < convs_.size()) y = torch::relu(y);
    }
    return torch::relu(y + (downsample_ ? downsample_->forward(x) : x));
  }

 private:
  void add(int64_t in, int64_t out, int64_t kernel, int64_t stride) {
    const std::string number = std::to_string(convs_.size() + 1);
    convs_.push_back(register_module("conv" + number, conv(in, out, kernel, stride)));
    norms_.push_back(register_module("bn" + number, torch::nn::BatchNorm2d(out)));
  }
  std::vector<torch::nn::Conv2d> convs_;
  std::vector<torch::nn::BatchNorm2d> norms_;
  torch::nn::Sequential downsample_{nullptr};
};
TORCH_MODULE(Residual);

class ResNet : public ImageModel {
 public:
  explicit ResNet(const ResNetOptions& options) : options_(options) {
    const bool bottleneck = options.size == "50", small = options.stem == "small";
    const std::vector<int64_t> depths =
        options.size == "18" ? std::vector<int64_t>{2, 2, 2, 2} : std::vector<int64_t>{3, 4, 6, 3};
    int64_t channels = 64;
    conv1_ =
        register_module("conv1", conv(options.channels, channels, small ? 3 : 7, small ? 1 : 2));
    bn1_ = register_module("bn1", torch::nn::BatchNorm2d(channels));
    for (size_t s = 0; s < depths.size(); ++s) {
      const int64_t width = int64_t{64} << s;
      torch::nn::ModuleList blocks;
      std::vector<Residual> stage;
      for (int64_t i = 0; i < depths[s]; ++i) {
        stage.emplace_back(channels, width, i == 0 && s > 0 ? 2 : 1, bottleneck);
        blocks->push_back(stage.back());
        channels = bottleneck ? 4 * width : width;
      }
      stages_.push_back(stage);
      widths_.push_back(channels);
      register_module("layer" + std::to_string(s + 1), blocks);
    }
    if (options.head) fc_ = register_module("fc", torch::nn::Linear(channels, options.classes));
    for (const auto& module : modules(/*include_self=*/false)) {
      if (auto* layer = module->as<torch::nn::Conv2dImpl>())
        torch::nn::init::kaiming_normal_(layer->weight, 0, torch::kFanOut, torch::kReLU);
    }
  }

  torch::Tensor forward_features(const torch::Tensor& images) override {
    return forward_maps(images).back().mean({2, 3});
  }
  torch::Tensor forward_head(const torch::Tensor& features) override {
    return fc_ ? fc_(features) : features;
  }
  int64_t num_features() const override { return widths_.back(); }

  std::vector<torch::Tensor> forward_maps(const torch::Tensor& images) override {
    check_shape(kResnetWho, images, "the images", {-1, options_.channels, -1, -1}, "B, C, H, W");
    auto x = torch::relu(bn1_(conv1_(images)));
    if (options_.stem == "imagenet") x = torch::max_pool2d(x, 3, 2, 1);
    std::vector<torch::Tensor> maps;
    for (auto& stage : stages_) {
      for (auto& block : stage) {
        const auto layer = block.ptr();
        x = recompute_block(
            options_.recompute && is_training(),
            [layer](const torch::Tensor& map) { return layer->forward(map); }, x);
      }
      maps.push_back(x);
    }
    return maps;
  }
  std::vector<int64_t> map_channels() const override { return widths_; }

  std::vector<std::string> tolerated_keys() const override {
    return options_.head ? std::vector<std::string>{} : std::vector<std::string>{"fc."};
  }

 private:
  ResNetOptions options_;
  torch::nn::Conv2d conv1_{nullptr};
  torch::nn::BatchNorm2d bn1_{nullptr};
  std::vector<std::vector<Residual>> stages_;
  std::vector<int64_t> widths_;
  torch::nn::Linear fc_{nullptr};
};

}  // namespace

void add_resnet(Registry<Model>& all) {
  all.add<ResNetOptions>(
      "resnet", [](const ResNetOptions& options) { return std::make_shared<ResNet>(options); });
}

}  // namespace serpentine
