// U-Net with plain or residual stages, as nnU-Net builds it.
//
// Ronneberger et al., arXiv 1505.04597; Isensee et al., Nature Methods 2021 (plain) and arXiv
// 2404.09556 (residual). Keys: those of nnU-Net's PlainConvUNet and ResidualEncoderUNet.
#include <torch/torch.h>

#include "core/registry.h"
#include "segmentation/network.h"
#include "segmentation/segmentation.h"

namespace serpentine {
namespace {

using torch::Tensor;

/// Units one after another, the first with the stride. Keys convs.I.*.
class UnitStackImpl : public torch::nn::Module {
 public:
  UnitStackImpl(int64_t count, int64_t in, int64_t out, const Extent& kernel, const Extent& stride,
                bool bias) {
    const Extent one(kernel.size(), 1);
    for (int64_t i = 0; i < count; ++i) {
      units_->push_back(
          ConvUnit(i == 0 ? in : out, out, kernel, i == 0 ? stride : one, bias).ptr());
    }
    register_module("convs", units_);
  }
  Tensor forward(Tensor x) {
    for (const auto& unit : *units_) x = unit->as<ConvUnitImpl>()->forward(x);
    return x;
  }

 private:
  torch::nn::ModuleList units_;
};
TORCH_MODULE(UnitStack);

/// Residual blocks one after another. Keys blocks.I.*.
class BlockStackImpl : public torch::nn::Module {
 public:
  BlockStackImpl(int64_t count, int64_t in, int64_t out, const Extent& kernel, const Extent& stride,
                 bool bias) {
    const Extent one(kernel.size(), 1);
    for (int64_t i = 0; i < count; ++i) {
      blocks_->push_back(
          BasicBlock(i == 0 ? in : out, out, kernel, i == 0 ? stride : one, bias).ptr());
    }
    register_module("blocks", blocks_);
  }
  Tensor forward(Tensor x) {
    for (const auto& block : *blocks_) x = block->as<BasicBlockImpl>()->forward(x);
    return x;
  }

 private:
  torch::nn::ModuleList blocks_;
};
TORCH_MODULE(BlockStack);

class UEncoderImpl : public torch::nn::Module {
 public:
  UEncoderImpl(const UOptions& options, const UPlan& plan, bool residual) : residual_(residual) {
    int64_t in = options.in_channels;
    if (residual) {
      const Extent one(static_cast<size_t>(plan.dims), 1);
      stem_ = register_module(
          "stem", UnitStack(1, in, plan.features[0], plan.kernels[0], one, options.conv_bias));
      in = plan.features[0];
    }
    const auto stages = std::make_shared<torch::nn::Module>();
    for (size_t s = 0; s < plan.features.size(); ++s) {
      const auto name = std::to_string(s);
      const int64_t out = plan.features[s];
      if (residual) {
        blocks_.push_back(
            stages->register_module(name, BlockStack(plan.convs[s], in, out, plan.kernels[s],
                                                     plan.strides[s], options.conv_bias)));
      } else {
        units_.emplace_back(plan.convs[s], in, out, plan.kernels[s], plan.strides[s],
                            options.conv_bias);
        const auto holder = std::make_shared<torch::nn::Module>();  // the published index 0
        holder->register_module("0", units_.back().ptr());
        stages->register_module(name, holder);
      }
      in = out;
    }
    register_module("stages", stages);
  }

  std::vector<Tensor> forward(Tensor x) {
    if (residual_) x = stem_(x);
    std::vector<Tensor> skips;
    for (size_t s = 0; s < std::max(units_.size(), blocks_.size()); ++s) {
      x = residual_ ? blocks_[s](x) : units_[s](x);
      skips.push_back(x);
    }
    return skips;
  }

 private:
  bool residual_;
  UnitStack stem_{nullptr};
  std::vector<UnitStack> units_;
  std::vector<BlockStack> blocks_;
};
TORCH_MODULE(UEncoder);

class UDecoderImpl : public torch::nn::Module {
 public:
  UDecoderImpl(const UOptions& options, const UPlan& plan) {
    const Extent one(static_cast<size_t>(plan.dims), 1);
    for (int64_t s = 1; s < plan.stages; ++s) {
      const auto below = static_cast<size_t>(plan.stages - s), here = below - 1;
      const int64_t width = plan.features[here];
      expand_->push_back(
          ExpandNd(plan.features[below], width, plan.strides[below], options.conv_bias).ptr());
      stages_->push_back(UnitStack(plan.decoder_convs[static_cast<size_t>(s - 1)], 2 * width, width,
                                   plan.kernels[here], one, options.conv_bias)
                             .ptr());
      heads_->push_back(ConvNd(width, options.classes, one, one, true).ptr());
    }
    register_module("transpconvs", expand_);
    register_module("stages", stages_);
    register_module("seg_layers", heads_);
  }

  /// The finest output, or all of them, finest first.
  std::vector<Tensor> forward(const std::vector<Tensor>& skips, bool all) {
    std::vector<Tensor> outputs;
    Tensor x = skips.back();
    for (size_t s = 0; s < stages_->size(); ++s) {
      x = expand_[s]->as<ExpandNdImpl>()->forward(x);
      x = torch::cat({x, skips[skips.size() - 2 - s]}, 1);
      x = stages_[s]->as<UnitStackImpl>()->forward(x);
      if (all || s + 1 == stages_->size())
        outputs.insert(outputs.begin(), heads_[s]->as<ConvNdImpl>()->forward(x));
    }
    return outputs;
  }

 private:
  torch::nn::ModuleList expand_, stages_, heads_;
};
TORCH_MODULE(UDecoder);

struct UNetOptions : UOptions {
  bool residual = false;
  void fields(Fields& f) {
    UOptions::fields(f);
    f("residual", residual, "residual blocks in the encoder (ResEnc) instead of plain ones");
  }
};

class UNet : public ScaledModel, public AliasedKeys {
 public:
  explicit UNet(const UNetOptions& options)
      : options_(options), plan_(plan_of("unet", options, 2, options.residual ? 1 : 2)) {
    encoder_ = register_module("encoder", UEncoder(options, plan_, options.residual));
    decoder_ = register_module("decoder", UDecoder(options, plan_));
    he_init(*this);
  }

  Tensor forward(const Batch& batch) override { return run(batch, false).front(); }
  std::vector<Tensor> scales(const Batch& batch) override {
    return run(batch, options_.deep_supervision);
  }
  std::vector<std::pair<std::string, std::string>> aliases() const override {
    return unit_aliases();
  }

 private:
  std::vector<Tensor> run(const Batch& batch, bool all) {
    check_input("unet", batch.input, plan_, options_.in_channels);
    return decoder_->forward(encoder_->forward(batch.input), all);
  }

  UNetOptions options_;
  UPlan plan_;
  UEncoder encoder_{nullptr};
  UDecoder decoder_{nullptr};
};

}  // namespace

void add_unet(Registry<Model>& all) {
  all.add<UNetOptions>("unet",
                       [](const UNetOptions& options) { return std::make_shared<UNet>(options); });
}

}  // namespace serpentine
