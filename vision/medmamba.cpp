// MedMamba: half of the channels convolve, half scan, then all are shuffled.
//
// Yue & Li, "MedMamba", arXiv 2403.03849, Figure 2. Keys and quirks as YubiaoYue/MedMamba's VSSM:
// the scan is the first VMamba's, odd maps lose their last row or column.
#include <algorithm>

#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/drop_path.h"
#include "vision/image_model.h"
#include "vision/recompute_block.h"
#include "vision/vision.h"
#include "vision/vss_block.h"

namespace serpentine {
namespace {

constexpr const char* kMedmambaWho = "medmamba";

struct MedMambaOptions : ImageModelOptions {
  std::string size;
  std::vector<int64_t> depths = {2, 2, 4, 2}, dims = {96};
  int64_t patch_size = 4, d_state = 16;
  double ssm_ratio = 2, drop_path = 0.1, dropout = 0;
  bool patch_norm = true;
  Config scan;

  void fields(Fields& f) {
    f("size", size, "a published configuration, which the keys below may change",
      {.choices = {"", "tiny", "small", "base"}});
    if (!size.empty()) {
      dims = {size == "base" ? 128 : 96};
      depths = {2, 2, size == "base" ? 12 : size == "small" ? 8 : 4, 2};
    }
    ImageModelOptions::fields(f);
    f("depths", depths, "blocks of each stage", {.least = 0});
    f("dims", dims, "channels of each stage, or of the first; they double", {.least = 2});
    f("patch_size", patch_size, "pixels of a side of a token", {.least = 1});
    f("patch_norm", patch_norm, "norm after the stem");
    f("d_state", d_state, "states a channel", {.least = 1});
    f("ssm_ratio", ssm_ratio, "inner channels of the scan over its half", {.least = 0.01});
    f("drop_path", drop_path, "of the last block; it grows linearly from 0",
      {.least = 0, .most = 0.99});
    f("dropout", dropout, "after the stem", {.least = 0, .most = 0.99});
    f.nested("scan", scan, "the routes; default {type: cross}", "serialization");
  }

  std::vector<int64_t> stage_dims() const {
    SERPENTINE_CHECK(!depths.empty(), kMedmambaWho, "depths must name at least one stage");
    if (dims.size() == depths.size()) return dims;
    SERPENTINE_CHECK(dims.size() == 1, kMedmambaWho,
                     "dims must have one number, or one for each of the ", depths.size(),
                     " stages, got ", dims.size());
    std::vector<int64_t> all = {dims[0]};
    while (all.size() < depths.size()) all.push_back(2 * all.back());
    return all;
  }
};

/// SS-Conv-SSM. Keys conv33conv33conv11, ln_1, self_attention.
class TwoHalvesImpl : public torch::nn::Module {
 public:
  TwoHalvesImpl(int64_t channels, const MedMambaOptions& options, double drop_path)
      : drop_(drop_path) {
    SERPENTINE_CHECK(channels % 2 == 0, kMedmambaWho, "channels must be even, got ", channels);
    const int64_t half = channels / 2;
    const auto conv = [&](int64_t kernel) {
      return torch::nn::Conv2d(torch::nn::Conv2dOptions(half, half, kernel).padding(kernel / 2));
    };
    convs_ = torch::nn::Sequential(
        torch::nn::BatchNorm2d(half), conv(3), torch::nn::BatchNorm2d(half), torch::nn::ReLU(),
        conv(3), torch::nn::BatchNorm2d(half), torch::nn::ReLU(), conv(1), torch::nn::ReLU());
    register_module("conv33conv33conv11", convs_);
    norm_ = MapNorm("ln", half);
    register_module("ln_1", norm_.module());
    Ss2dOptions ssm;
    ssm.d_model = half;
    ssm.d_state = options.d_state;
    ssm.ssm_ratio = options.ssm_ratio;
    ssm.forward_type = "v0";
    ssm.scan = options.scan;
    scan_ = register_module("self_attention", Ss2d(ssm));
  }

  torch::Tensor forward(const torch::Tensor& map, const ScanContext& context, Trace* trace) {
    const auto halves = map.chunk(2, -1);
    const auto scanned = scan_->forward(norm_.forward(halves[1]), context);
    const auto convolved = convs_->forward(channels_first(halves[0]));
    if (trace != nullptr) {
      (*trace)["ss2d"] = scanned;
      (*trace)["conv"] = convolved;
    }
    const auto both =
        torch::cat({channels_last(convolved), drop_path(scanned, drop_, is_training())}, -1);
    // the halves' channels take turns
    return both.unflatten(-1, {2, map.size(-1) / 2}).transpose(-1, -2).flatten(-2) + map;
  }

 private:
  double drop_;
  torch::nn::Sequential convs_{nullptr};
  MapNorm norm_;
  Ss2d scan_{nullptr};
};
TORCH_MODULE(TwoHalves);

class MedMamba : public ImageModel {
 public:
  explicit MedMamba(const MedMambaOptions& options)
      : options_(options), dims_(options.stage_dims()) {
    const auto stem =
        register_module("patch_embed", std::make_shared<torch::nn::Module>("patch_embed"));
    stem_ = stem->register_module(
        "proj",
        torch::nn::Conv2d(torch::nn::Conv2dOptions(options.channels, dims_[0], options.patch_size)
                              .stride(options.patch_size)));
    if (options.patch_norm) {
      stem_norm_ = MapNorm("ln", dims_[0]);
      stem->register_module("norm", stem_norm_.module());
    }
    int64_t count = 0;
    for (const int64_t depth : options.depths) count += depth;
    const auto rates = drop_path_rates(options.drop_path, count);
    torch::nn::ModuleList layers;
    size_t number = 0;
    for (size_t s = 0; s < dims_.size(); ++s) {
      const auto made = std::make_shared<torch::nn::Module>("stage");
      Stage stage;
      torch::nn::ModuleList blocks;
      for (int64_t i = 0; i < options.depths[s]; ++i) {
        stage.blocks.emplace_back(dims_[s], options, rates[number++]);
        blocks->push_back(stage.blocks.back());
      }
      made->register_module("blocks", blocks);
      if (s + 1 < dims_.size())
        stage.merging = made->register_module(
            "downsample", PatchMerging(dims_[s], dims_[s + 1], "ln", /*crop=*/true));
      stages_.push_back(stage);
      layers->push_back(made);
    }
    register_module("layers", layers);
    head_ = register_module("head", torch::nn::Linear(dims_.back(), options.classes));
    init_swin_style(*this);
  }

  torch::Tensor forward_features(const torch::Tensor& images) override {
    return run(images, nullptr).mean({1, 2});
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
    std::vector<TwoHalves> blocks;
    PatchMerging merging{nullptr};
  };

  torch::Tensor run(const torch::Tensor& images, std::vector<torch::Tensor>* maps) {
    check_shape(kMedmambaWho, images, "the images", {-1, options_.channels, -1, -1}, "B, C, H, W");
    auto x = convolve(stem_, channels_last(images));
    if (stem_norm_.module()) x = stem_norm_.forward(x);
    leave_trace("after_patch_embed", x);
    x = torch::dropout(x, options_.dropout, is_training());
    ScanContext context;
    context.training = is_training();
    context.num_layers = 0;
    for (const int64_t depth : options_.depths) context.num_layers += depth;
    for (size_t s = 0; s < stages_.size(); ++s) {
      const std::string name = "stage" + std::to_string(s);
      for (size_t i = 0; i < stages_[s].blocks.size(); ++i) {
        const std::string block = name + ".block" + std::to_string(i);
        Trace inner;
        const auto layer = stages_[s].blocks[i].ptr();
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
        ++context.layer;
      }
      if (maps != nullptr) maps->push_back(channels_first(x));
      if (stages_[s].merging) x = stages_[s].merging(x);
      leave_trace(name, x);
    }
    return x;
  }

  MedMambaOptions options_;
  std::vector<int64_t> dims_;
  torch::nn::Conv2d stem_{nullptr};
  MapNorm stem_norm_;
  std::vector<Stage> stages_;
  torch::nn::Linear head_{nullptr};
};

}  // namespace

void add_medmamba(Registry<Model>& all) {
  all.add<MedMambaOptions>("medmamba", [](const MedMambaOptions& options) {
    return std::make_shared<MedMamba>(options);
  });
}

}  // namespace serpentine
