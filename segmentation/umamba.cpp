// U-Mamba: a residual U with Mamba at the bottom (Bot) or after stages of the encoder (Enc).
//
// Ma, Li, Wang, arXiv 2401.04722, Figure 1. Keys: those of the published UMambaBot and UMambaEnc.
#include <torch/torch.h>

#include "core/check.h"
#include "core/registry.h"
#include "segmentation/mamba_layer.h"
#include "segmentation/network.h"
#include "segmentation/segmentation.h"

namespace serpentine {
namespace {

using torch::Tensor;

struct UMambaOptions : UOptions {
  MapMambaOptions mixer;
  std::vector<int64_t> input_size;
  void fields(Fields& f) {
    UOptions::fields(f);
    mixer.fields(f);
    f("input_size", input_size,
      "size of the patches, finest first axis first; where a stage has fewer pixels than "
      "channels, channels are its tokens (umamba_enc only)",
      {.least = 1});
  }
};

/// conv-norm-act-conv-norm beside a strided 1x1 convolution. Keys conv1, norm1, conv2, norm2,
/// conv3.
class ProjectedBlockImpl : public torch::nn::Module {
 public:
  ProjectedBlockImpl(int64_t in, int64_t out, const Extent& kernel, const Extent& stride) {
    const Extent one(kernel.size(), 1);
    conv1_ = register_module("conv1", ConvNd(in, out, kernel, stride, true));
    norm1_ = register_module("norm1", InstanceNorm(out));
    conv2_ = register_module("conv2", ConvNd(out, out, kernel, one, true));
    norm2_ = register_module("norm2", InstanceNorm(out));
    conv3_ = register_module("conv3", ConvNd(in, out, one, stride, true));
  }
  Tensor forward(const Tensor& x) {
    const auto y = norm2_(conv2_(norm1_(conv1_(x), kSlope)));
    return torch::leaky_relu(y + conv3_(x), kSlope);
  }

 private:
  ConvNd conv1_{nullptr}, conv2_{nullptr}, conv3_{nullptr};
  InstanceNorm norm1_{nullptr}, norm2_{nullptr};
};
TORCH_MODULE(ProjectedBlock);

/// A projected block, then basic blocks. Keys 0.*, 1.*, ...
class StageImpl : public torch::nn::Module {
 public:
  StageImpl(int64_t blocks, int64_t in, int64_t out, const Extent& kernel, const Extent& stride,
            bool bias) {
    first_ = register_module("0", ProjectedBlock(in, out, kernel, stride));
    for (int64_t i = 1; i < blocks; ++i) {
      rest_.push_back(register_module(
          std::to_string(i), BasicBlock(out, out, kernel, Extent(kernel.size(), 1), bias)));
    }
  }
  Tensor forward(Tensor x) {
    x = first_(x);
    for (auto& block : rest_) x = block(x);
    return x;
  }

 private:
  ProjectedBlock first_{nullptr};
  std::vector<BasicBlock> rest_;
};
TORCH_MODULE(Stage);

/// Nearest pixels, then a 1x1 convolution. Keys conv.*.
class UpsampleImpl : public torch::nn::Module {
 public:
  UpsampleImpl(int64_t in, int64_t out, const Extent& stride) {
    const Extent one(stride.size(), 1);
    conv_ = register_module("conv", ConvNd(in, out, one, one, true));
    for (const int64_t side : stride) scale_.push_back(static_cast<double>(side));
  }
  // a 1x1 convolution commutes with repeating pixels, and costs less before it
  Tensor forward(const Tensor& x) {
    namespace F = torch::nn::functional;
    return F::interpolate(conv_(x),
                          F::InterpolateFuncOptions().scale_factor(scale_).mode(torch::kNearest));
  }

 private:
  ConvNd conv_{nullptr};
  std::vector<double> scale_;
};
TORCH_MODULE(Upsample);

class UMambaEncoderImpl : public torch::nn::Module {
 public:
  UMambaEncoderImpl(const UMambaOptions& options, const UPlan& plan, bool mixing) {
    const Extent one(static_cast<size_t>(plan.dims), 1);
    stem_ = register_module("stem", Stage(plan.convs[0], options.in_channels, plan.features[0],
                                          plan.kernels[0], one, options.conv_bias));
    const auto stages = std::make_shared<torch::nn::Module>();
    const auto mixers = std::make_shared<torch::nn::Module>();
    std::vector<int64_t> size = options.input_size;
    if (mixing) {
      SERPENTINE_CHECK(static_cast<int64_t>(size.size()) == plan.dims, "umamba_enc",
                       "input_size needs ", plan.dims, " numbers, got ", size.size());
    }
    int64_t in = plan.features[0];
    for (int64_t s = 0; s < plan.stages; ++s) {
      const auto at = static_cast<size_t>(s);
      const int64_t out = plan.features[at];
      stages_.push_back(stages->register_module(
          std::to_string(s),
          Stage(plan.convs[at], in, out, plan.kernels[at], plan.strides[at], options.conv_bias)));
      in = out;
      mixers_.emplace_back(nullptr);
      if (!mixing) continue;
      int64_t pixels = 1;
      for (size_t axis = 0; axis < size.size(); ++axis) {
        size[axis] /= plan.strides[at][axis];
        pixels *= size[axis];
      }
      if (plan.dims == 2 && s % 2 == plan.stages % 2) continue;  // every second stage, the last too
      const bool channels = pixels <= out;
      mixers_.back() = mixers->register_module(
          std::to_string(s),
          MapMamba(channels ? pixels : out, options.mixer,
                   map_serialization(options.mixer.scan, Config::parse("{type: raster}")),
                   channels));
    }
    register_module("stages", stages);
    if (mixing) register_module("mamba_layers", mixers);
  }

  std::vector<Tensor> forward(Tensor x, std::map<std::string, Tensor>* trace) {
    const auto leave = [&](const std::string& name, const Tensor& tensor) {
      if (trace != nullptr) (*trace)[name] = tensor;
    };
    std::vector<Tensor> skips;
    x = stem_(x);
    leave("after_stem", x);
    for (size_t s = 0; s < stages_.size(); ++s) {
      x = stages_[s](x);
      if (mixers_[s]) {
        leave("encoder.mamba" + std::to_string(s) + ".in", x);
        x = mixers_[s](x);
        leave("encoder.mamba" + std::to_string(s) + ".out", x);
      }
      skips.push_back(x);
      leave("encoder.skip" + std::to_string(s), x);
    }
    return skips;
  }

 private:
  Stage stem_{nullptr};
  std::vector<Stage> stages_;
  std::vector<MapMamba> mixers_;  // null where a stage has none
};
TORCH_MODULE(UMambaEncoder);

class UMambaDecoderImpl : public torch::nn::Module {
 public:
  UMambaDecoderImpl(const UMambaOptions& options, const UPlan& plan) {
    const Extent one(static_cast<size_t>(plan.dims), 1);
    const auto stages = std::make_shared<torch::nn::Module>(),
               upsamples = std::make_shared<torch::nn::Module>(),
               heads = std::make_shared<torch::nn::Module>();
    for (int64_t s = 1; s < plan.stages; ++s) {
      const auto below = static_cast<size_t>(plan.stages - s), here = below - 1;
      const auto name = std::to_string(s - 1);
      const int64_t width = plan.features[here];
      joins_.push_back(plan.dims == 3 || here > 0);  // the 2-D networks leave out the finest skip
      upsamples_.push_back(upsamples->register_module(
          name, Upsample(plan.features[below], width, plan.strides[below])));
      stages_.push_back(stages->register_module(
          name,
          Stage(plan.decoder_convs[static_cast<size_t>(s - 1)], joins_.back() ? 2 * width : width,
                width, plan.kernels[here], one, options.conv_bias)));
      heads_.push_back(
          heads->register_module(name, ConvNd(width, options.classes, one, one, true)));
    }
    register_module("stages", stages);
    register_module("upsample_layers", upsamples);
    register_module("seg_layers", heads);
  }

  std::vector<Tensor> forward(const std::vector<Tensor>& skips, bool all,
                              std::map<std::string, Tensor>* trace) {
    std::vector<Tensor> outputs;
    Tensor x = skips.back();
    for (size_t s = 0; s < stages_.size(); ++s) {
      x = upsamples_[s](x);
      if (trace != nullptr && s == 0) (*trace)["decoder.upsample0"] = x;
      if (joins_[s]) x = torch::cat({x, skips[skips.size() - 2 - s]}, 1);
      x = stages_[s](x);
      if (trace != nullptr && s == 0) (*trace)["decoder.stage0"] = x;
      if (all || s + 1 == stages_.size()) outputs.insert(outputs.begin(), heads_[s](x));
    }
    return outputs;
  }

 private:
  std::vector<Upsample> upsamples_;
  std::vector<Stage> stages_;
  std::vector<ConvNd> heads_;
  std::vector<bool> joins_;
};
TORCH_MODULE(UMambaDecoder);

/// The published constructors keep one block in the coarser half, whatever was asked for.
UPlan published_plan(const std::string& who, const UMambaOptions& options) {
  UPlan plan = plan_of(who, options, 2, 2);
  for (auto s = static_cast<size_t>(plan.stages + 1) / 2; s < plan.convs.size(); ++s) {
    plan.convs[s] = 1;
    if (s < plan.decoder_convs.size()) plan.decoder_convs[s] = 1;
  }
  return plan;
}

class UMamba : public ScaledModel, public AliasedKeys {
 public:
  UMamba(const UMambaOptions& options, bool mixing_encoder)
      : options_(options),
        who_(mixing_encoder ? "umamba_enc" : "umamba_bot"),
        plan_(published_plan(who_, options)) {
    encoder_ = register_module("encoder", UMambaEncoder(options, plan_, mixing_encoder));
    if (!mixing_encoder) {
      mixer_ = register_module(
          "mamba_layer",
          MapMamba(plan_.features.back(), options.mixer,
                   map_serialization(options.mixer.scan, Config::parse("{type: raster}"))));
    }
    decoder_ = register_module("decoder", UMambaDecoder(options, plan_));
    he_init(*this);
  }

  Tensor forward(const Batch& batch) override { return run(batch, false).front(); }
  std::vector<Tensor> scales(const Batch& batch) override {
    return run(batch, options_.deep_supervision);
  }
  std::vector<std::pair<std::string, std::string>> aliases() const override {
    return {{"^decoder.encoder.", "encoder."},
            {".conv1.all_modules.0.", ".conv1.conv."},
            {".conv1.all_modules.1.", ".conv1.norm."},
            {".conv2.all_modules.0.", ".conv2.conv."},
            {".conv2.all_modules.1.", ".conv2.norm."}};
  }

 private:
  std::vector<Tensor> run(const Batch& batch, bool all) {
    check_input(who_.c_str(), batch.input, plan_, options_.in_channels);
    auto skips = encoder_->forward(batch.input, trace);
    if (mixer_) {
      leave_trace("mamba_layer.in", skips.back());
      skips.back() = mixer_(skips.back());
      leave_trace("mamba_layer.out", skips.back());
    }
    return decoder_->forward(skips, all, trace);
  }

  UMambaOptions options_;
  std::string who_;
  UPlan plan_;
  UMambaEncoder encoder_{nullptr};
  MapMamba mixer_{nullptr};
  UMambaDecoder decoder_{nullptr};
};

}  // namespace

void add_umamba(Registry<Model>& all) {
  all.add<UMambaOptions>("umamba_bot", [](const UMambaOptions& options) {
    return std::make_shared<UMamba>(options, false);
  });
  all.add<UMambaOptions>("umamba_enc", [](const UMambaOptions& options) {
    return std::make_shared<UMamba>(options, true);
  });
}

}  // namespace serpentine
