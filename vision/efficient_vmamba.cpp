// EfficientVMamba: early stages scan in skips beside a convolution, late ones only convolve.
//
// Pei et al., "EfficientVMamba", arXiv 2403.09977, Figure 2. Keys and quirks as
// TerryPei/EfficientVMamba's EfficientVSSM.
#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/drop_path.h"
#include "vision/channel_gate.h"
#include "vision/image_model.h"
#include "vision/recompute_block.h"
#include "vision/vision.h"
#include "vision/vss_block.h"

namespace serpentine {
namespace {

constexpr const char* kEfficientVmambaWho = "efficient_vmamba";
constexpr size_t kScanning = 2;    // stages that scan
constexpr int64_t kExpansion = 4;  // of an inverted residual
constexpr int64_t kReduction = 8;  // of channel gates

struct EfficientVmambaOptions : ImageModelOptions {
  std::string size;
  std::vector<int64_t> depths = {2, 2, 4, 2}, dims = {48};
  int64_t patch_size = 4;
  double ssm_ratio = 2, rank_ratio = 0, drop_path = 0.1;
  std::string forward_type = "v2";
  bool patch_norm = true;
  Config scan;

  void fields(Fields& f) {
    f("size", size, "a published configuration, which the keys below may change",
      {.choices = {"", "tiny", "small", "base"}});
    if (!size.empty()) {
      dims = {size == "base" ? 96 : size == "small" ? 64 : 48};
      depths = {2, 2, size == "base" ? 9 : 4, 2};
    }
    ImageModelOptions::fields(f);
    f("depths", depths, "blocks of each stage; the first two scan, the others convolve",
      {.least = 0});
    f("dims", dims, "channels of each stage, or of the first; they double", {.least = 1});
    f("patch_size", patch_size, "pixels of a side of a token", {.least = 1});
    f("patch_norm", patch_norm, "norm after the stem");
    f("ssm_ratio", ssm_ratio, "inner channels of the scan over the block's", {.least = 0.01});
    f("rank_ratio", rank_ratio,
      "scanned channels over the block's, if fewer than the inner ones; 0: all", {.least = 0});
    f("forward_type", forward_type, "variant of the scan's block, as in vmamba");
    f("drop_path", drop_path, "of the last block; it grows linearly from 0",
      {.least = 0, .most = 0.99});
    f.nested("scan", scan, "the routes; default {type: atrous, step: 2}", "serialization");
  }

  std::vector<int64_t> stage_dims() const {
    SERPENTINE_CHECK(!depths.empty(), kEfficientVmambaWho, "depths must name at least one stage");
    if (dims.size() == depths.size()) return dims;
    SERPENTINE_CHECK(dims.size() == 1, kEfficientVmambaWho,
                     "dims must have one number, or one for each of the ", depths.size(),
                     " stages, got ", dims.size());
    std::vector<int64_t> all = {dims[0]};
    while (all.size() < depths.size()) all.push_back(2 * all.back());
    return all;
  }
};

torch::nn::Conv2d conv(int64_t in, int64_t out, int64_t kernel, int64_t groups, bool bias) {
  return torch::nn::Conv2d(
      torch::nn::Conv2dOptions(in, out, kernel).padding(kernel / 2).groups(groups).bias(bias));
}

/// x + gate(SS2D(n)) + gate(convolutions(n)), n = norm(x); both branches share the gate.
class ScanBlockImpl : public torch::nn::Module {
 public:
  ScanBlockImpl(const Ss2dOptions& ssm, double drop_path) : drop_(drop_path) {
    const int64_t channels = ssm.d_model;
    norm_ = MapNorm("ln", channels);
    register_module("norm", norm_.module());
    op_ = register_module("op", Ss2d(ssm));
    conv_branch_ = torch::nn::Sequential(conv(channels, channels, 3, channels, true),
                                         torch::nn::BatchNorm2d(channels), torch::nn::GELU(),
                                         conv(channels, channels, 1, 1, true));
    register_module("conv_branch", conv_branch_);
    se_ = register_module("se", ChannelGate(channels, channels / kReduction));
  }

  torch::Tensor forward(const torch::Tensor& map, const ScanContext& context, Trace* trace) {
    const auto normed = norm_.forward(map);
    const auto scanned = op_->forward(normed, context);
    const auto convolved = channels_last(conv_branch_->forward(channels_first(normed)));
    if (trace != nullptr) {
      (*trace)["norm"] = normed;
      (*trace)["op_out"] = scanned;
      (*trace)["conv_branch"] = convolved;
    }
    return map + drop_path(se_(scanned) + se_(convolved), drop_, is_training());
  }

 private:
  double drop_;
  MapNorm norm_;
  Ss2d op_{nullptr};
  torch::nn::Sequential conv_branch_{nullptr};
  ChannelGate se_{nullptr};
};
TORCH_MODULE(ScanBlock);

/// Squeeze and excitation of [B, C, H, W]. Keys conv_reduce, conv_expand.
class SqueezeImpl : public torch::nn::Module {
 public:
  explicit SqueezeImpl(int64_t channels) {
    reduce_ = register_module("conv_reduce", conv(channels, channels / kReduction, 1, 1, true));
    expand_ = register_module("conv_expand", conv(channels / kReduction, channels, 1, 1, true));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    const auto mean = x.mean({2, 3}, /*keepdim=*/true);
    return x * torch::sigmoid(expand_(torch::relu(reduce_(mean))));
  }

 private:
  torch::nn::Conv2d reduce_{nullptr}, expand_{nullptr};
};
TORCH_MODULE(Squeeze);

/// MobileNet's inverted residual with a gate, over [B, C, H, W].
class InvertedResidualImpl : public torch::nn::Module {
 public:
  explicit InvertedResidualImpl(int64_t channels) {
    const int64_t wide = kExpansion * channels;
    const auto add = [&](const char* name, torch::nn::Conv2d layer, int64_t out) {
      const auto made = torch::nn::Sequential(layer, torch::nn::BatchNorm2d(out));
      return register_module(name, made);
    };
    conv_pw_ = add("conv_pw", conv(channels, wide, 1, 1, false), wide);
    conv_dw_ = add("conv_dw", conv(wide, wide, 3, wide, false), wide);
    se_ = register_module("se", Squeeze(wide));
    conv_pw2_ = add("conv_pw2", conv(wide, channels, 1, 1, false), channels);
  }
  torch::Tensor forward(const torch::Tensor& x) {
    const auto wide = torch::relu(conv_dw_->forward(torch::relu(conv_pw_->forward(x))));
    return x + conv_pw2_->forward(se_(wide));
  }

 private:
  torch::nn::Sequential conv_pw_{nullptr}, conv_dw_{nullptr}, conv_pw2_{nullptr};
  Squeeze se_{nullptr};
};
TORCH_MODULE(InvertedResidual);

class EfficientVmamba : public ImageModel {
 public:
  explicit EfficientVmamba(const EfficientVmambaOptions& options)
      : options_(options), dims_(options.stage_dims()) {
    // the numbers are those of the reference's Sequential
    const auto stem =
        register_module("patch_embed", std::make_shared<torch::nn::Module>("patch_embed"));
    stem_ = stem->register_module(
        "0",
        torch::nn::Conv2d(torch::nn::Conv2dOptions(options.channels, dims_[0], options.patch_size)
                              .stride(options.patch_size)));
    if (options.patch_norm) {
      stem_norm_ = MapNorm("ln", dims_[0]);
      stem->register_module("2", stem_norm_.module());
    }
    int64_t blocks = 0;
    for (const int64_t depth : options.depths) blocks += depth;
    const auto rates = drop_path_rates(options.drop_path, blocks);
    torch::nn::ModuleList layers;
    for (size_t s = 0; s < dims_.size(); ++s) layers->push_back(add_stage(s, rates));
    register_module("layers", layers);
    const auto classifier =
        register_module("classifier", std::make_shared<torch::nn::Module>("classifier"));
    norm_ = MapNorm("ln", dims_.back());
    classifier->register_module("norm", norm_.module());
    head_ = classifier->register_module("head", torch::nn::Linear(dims_.back(), options.classes));
    init_swin_style(*this);
  }

  torch::Tensor forward_features(const torch::Tensor& images) override {
    const auto pooled = norm_.forward(run(images, nullptr)).mean({1, 2});
    leave_trace("after_avgpool", pooled);
    return pooled;
  }
  torch::Tensor forward_head(const torch::Tensor& features) override { return head_(features); }
  int64_t num_features() const override { return dims_.back(); }
  std::vector<torch::Tensor> forward_maps(const torch::Tensor& images) override {
    std::vector<torch::Tensor> maps;
    run(images, &maps);
    return maps;
  }
  std::vector<int64_t> map_channels() const override { return dims_; }

 private:
  struct Stage {
    std::vector<ScanBlock> scans;
    std::vector<InvertedResidual> convs;
    PatchMerging merging{nullptr};
    int64_t first = 0;  // number of its first block in the model
  };

  std::shared_ptr<torch::nn::Module> add_stage(size_t number, const std::vector<double>& rates) {
    const auto made = std::make_shared<torch::nn::Module>("stage");
    Stage stage;
    for (size_t s = 0; s < number; ++s) stage.first += options_.depths[s];
    const int64_t depth = options_.depths[number], dim = dims_[number];
    const bool scanning = number < kScanning, last = number + 1 == dims_.size();
    if (!last) stage.merging = PatchMerging(dim, dims_[number + 1]);
    if (scanning) {
      torch::nn::ModuleList blocks;
      for (int64_t i = 0; i < depth; ++i) {
        stage.scans.emplace_back(scan_options(dim), rates[static_cast<size_t>(stage.first + i)]);
        blocks->push_back(stage.scans.back());
      }
      made->register_module("blocks", blocks);
      if (!last) made->register_module("downsample", stage.merging);
    } else {
      // as the reference numbers them: a permutation before and one behind the blocks
      for (int64_t i = 0; i < depth; ++i) {
        stage.convs.emplace_back(dim);
        made->register_module(std::to_string(i + 1), stage.convs.back());
      }
      if (!last) made->register_module(std::to_string(depth + 2), stage.merging);
    }
    stages_.push_back(stage);
    return made;
  }

  Ss2dOptions scan_options(int64_t dim) const {
    Ss2dOptions ssm;
    ssm.d_model = dim;
    ssm.ssm_ratio = options_.ssm_ratio;
    ssm.rank_ratio = options_.rank_ratio;
    ssm.forward_type = options_.forward_type;
    ssm.scan = options_.scan.has("type") ? options_.scan : Config::parse("{type: atrous, step: 2}");
    return ssm;
  }

  // [B, C, H, W] -> the last stage's map, channels last; `maps`: of each stage, channels first
  torch::Tensor run(const torch::Tensor& images, std::vector<torch::Tensor>* maps) {
    check_shape(kEfficientVmambaWho, images, "the images", {-1, options_.channels, -1, -1},
                "B, C, H, W");
    auto x = convolve(stem_, channels_last(images));
    if (stem_norm_.module()) x = stem_norm_.forward(x);
    leave_trace("after_patch_embed", x);
    for (size_t s = 0; s < stages_.size(); ++s) {
      Stage& stage = stages_[s];
      const std::string name = "stage" + std::to_string(s);
      ScanContext context;
      context.num_layers = stages_.back().first + options_.depths.back();
      context.training = is_training();
      for (size_t i = 0; i < stage.scans.size(); ++i) {
        context.layer = stage.first + static_cast<int64_t>(i);
        const std::string block = name + ".block" + std::to_string(i);
        Trace inner;
        const auto layer = stage.scans[i].ptr();
        Trace* const leave = trace != nullptr ? &inner : nullptr;
        x = recompute_block(
            options_.recompute && is_training() && leave == nullptr,
            [layer, context, leave](const torch::Tensor& map) {
              return layer->forward(map, context, leave);
            },
            x);
        for (const auto& [part, tensor] : inner)
          leave_trace(std::string(block).append(".").append(part), tensor);
        leave_trace(block, x);
      }
      if (!stage.convs.empty()) {
        auto y = channels_first(x);
        for (size_t i = 0; i < stage.convs.size(); ++i) {
          const auto layer = stage.convs[i].ptr();
          y = recompute_block(
              options_.recompute && is_training(),
              [layer](const torch::Tensor& map) { return layer->forward(map); }, y);
          leave_trace(name + ".ir" + std::to_string(i), y);
        }
        x = channels_last(y);
      }
      if (maps != nullptr) maps->push_back(channels_first(x));
      if (stage.merging) x = stage.merging(x);
      leave_trace(name, x);
    }
    return x;
  }

  EfficientVmambaOptions options_;
  std::vector<int64_t> dims_;
  torch::nn::Conv2d stem_{nullptr};
  MapNorm stem_norm_, norm_;
  std::vector<Stage> stages_;
  torch::nn::Linear head_{nullptr};
};

}  // namespace

void add_efficient_vmamba(Registry<Model>& all) {
  all.add<EfficientVmambaOptions>("efficient_vmamba", [](const EfficientVmambaOptions& options) {
    return std::make_shared<EfficientVmamba>(options);
  });
}

}  // namespace serpentine
