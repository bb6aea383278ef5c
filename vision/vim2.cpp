// ViM2: token mixers that scan the map, channel mixers that scan each token's channels, and learned
// averages of all earlier outputs between them.
//
// Behrouz et al., "MambaMixer", arXiv 2403.19888, Figures 1 and 2, section 4. No code was
// published; where the paper leaves room, this is assumed:
//   - a stage's mixers stand in groups of token layers with one channel layer behind each group;
//   - every mixer reads a norm of the weighted sum; all weights begin at 1, so that the network
//     begins as a residual one, and the stage's output is such a sum too;
//   - the token mixer is VMamba's gated SS2D;
//   - a channel mixer must not depend on the number of tokens: a token's C channels are a sequence
//     of C / g steps of g neighbouring channels, scanned both ways, gated by silu(W n), projected;
//   - stem, merging between stages, pooling and head are VMamba's first version's.
#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/drop_path.h"
#include "core/ops/gate.h"
#include "vision/image_model.h"
#include "vision/recompute_block.h"
#include "vision/routed_mamba.h"
#include "vision/vision.h"
#include "vision/vss_block.h"

namespace serpentine {
namespace {

constexpr const char* kVim2Who = "vim2";

struct Vim2Options : ImageModelOptions {
  std::string size;
  std::vector<int64_t> token_layers = {2, 2, 6, 2}, channel_layers = {1, 1, 3, 1};
  int64_t dim = 96, patch_size = 4, d_state = 16, channel_step = 8;
  double ssm_ratio = 2, drop_path = 0.2;
  Config scan;

  void fields(Fields& f) {
    f("size", size, "a published configuration, which the keys below may change",
      {.choices = {"", "tiny", "small", "base"}});
    if (!size.empty()) {
      const bool tiny = size == "tiny";
      dim = size == "base" ? 128 : 96;
      token_layers = {2, 2, tiny ? 6 : 18, 2};
      channel_layers = {1, 1, tiny ? 3 : 9, 1};
      drop_path = tiny ? 0.2 : 0.3;
    }
    ImageModelOptions::fields(f);
    f("token_layers", token_layers, "token mixers of each stage", {.least = 1});
    f("channel_layers", channel_layers,
      "channel mixers of each stage; they divide its token mixers", {.least = 1});
    f("dim", dim, "channels of the first stage; they double", {.least = 1});
    f("patch_size", patch_size, "pixels of a side of a token", {.least = 1});
    f("d_state", d_state, "states a channel", {.least = 1});
    f("ssm_ratio", ssm_ratio, "inner channels of a token mixer over the stage's", {.least = 0.01});
    f("channel_step", channel_step, "channels of a step of a channel mixer; divides dim",
      {.least = 1});
    f("drop_path", drop_path, "of the last mixer; it grows linearly from 0",
      {.least = 0, .most = 0.99});
    f.nested("scan", scan, "the routes of token mixers; default {type: cross}", "serialization");
  }
};

/// Scans each token's channels both ways. Keys scan, gate, out.
class ChannelMixerImpl : public torch::nn::Module {
 public:
  ChannelMixerImpl(int64_t channels, const Vim2Options& options) : step_(options.channel_step) {
    SERPENTINE_CHECK(channels % step_ == 0, kVim2Who, "channel_step must divide ", channels,
                     ", got ", step_);
    RoutedMambaOptions inner;
    inner.mamba.d_model = step_;
    inner.mamba.d_state = options.d_state;
    scan_ = register_module("scan", RoutedMamba(inner, 2));
    gate_ = register_module("gate", torch::nn::Linear(channels, channels));
    out_ = register_module("out", torch::nn::Linear(channels, channels));
  }

  torch::Tensor forward(const torch::Tensor& map) {  // [B, H, W, C]
    const auto steps = map.reshape({-1, map.size(3) / step_, step_});
    const auto order = both_ways(steps.size(1), map.device());
    const auto scanned = scan_->forward(steps, order).reshape(map.sizes());
    return out_(silu_gate(scanned, gate_(map)));
  }

 private:
  const ScanOrder& both_ways(int64_t steps, at::Device device) {
    if (!order_.tokens.defined() || order_.tokens.device() != device) {
      const auto ahead = identity_order(steps);
      order_ = stack({ahead, reversed(ahead)}, 2).to(device);
    }
    return order_;
  }

  int64_t step_;
  ScanOrder order_;  // a mixer's number of steps is fixed
  RoutedMamba scan_{nullptr};
  torch::nn::Linear gate_{nullptr}, out_{nullptr};
};
TORCH_MODULE(ChannelMixer);

/// A stage's mixers and the weights of their inputs. Keys mixers.I.{norm, token or channel},
/// weights.I [number of earlier outputs].
class MixerStageImpl : public torch::nn::Module {
 public:
  MixerStageImpl(size_t number, int64_t channels, const Vim2Options& options,
                 const std::vector<double>& rates)
      : recompute_(options.recompute), rates_(rates) {
    const int64_t tokens = options.token_layers[number], groups = options.channel_layers[number];
    SERPENTINE_CHECK(tokens % groups == 0, kVim2Who,
                     "channel_layers must divide token_layers, got ", groups, " and ", tokens);
    torch::nn::ModuleList mixers;
    for (int64_t group = 0; group < groups; ++group) {
      for (int64_t i = 0; i <= tokens / groups; ++i) {
        const auto made = std::make_shared<torch::nn::Module>("mixer");
        MixerParts mixer;
        mixer.norm = MapNorm("ln", channels);
        made->register_module("norm", mixer.norm.module());
        if (i < tokens / groups) {
          Ss2dOptions ssm;
          ssm.d_model = channels;
          ssm.d_state = options.d_state;
          ssm.ssm_ratio = options.ssm_ratio;
          ssm.scan = options.scan;
          mixer.token = made->register_module("token", Ss2d(ssm));
        } else {
          mixer.channel = made->register_module("channel", ChannelMixer(channels, options));
        }
        mixers_.push_back(mixer);
        mixers->push_back(made);
      }
    }
    register_module("mixers", mixers);
    const auto all = register_module("weights", std::make_shared<torch::nn::Module>("weights"));
    for (size_t i = 0; i <= mixers_.size(); ++i)
      weights_.push_back(
          all->register_parameter(std::to_string(i), torch::ones({static_cast<int64_t>(i) + 1})));
  }

  int64_t size() const { return static_cast<int64_t>(mixers_.size()); }

  torch::Tensor forward(const torch::Tensor& map, ScanContext context) {
    std::vector<torch::Tensor> outputs = {map};
    for (size_t i = 0; i < mixers_.size(); ++i) {
      const MixerParts mixer = mixers_[i];
      const auto mixed = recompute_block(
          recompute_ && is_training(),
          [mixer, context](const torch::Tensor& sum) {
            const auto normed = mixer.norm.forward(sum);
            return mixer.token ? mixer.token.ptr()->forward(normed, context)
                               : mixer.channel.ptr()->forward(normed);
          },
          weighted(outputs, i));
      outputs.push_back(drop_path(mixed, rates_[i], is_training()));
      ++context.layer;
    }
    return weighted(outputs, mixers_.size());
  }

 private:
  struct MixerParts {
    MapNorm norm;
    Ss2d token{nullptr};
    ChannelMixer channel{nullptr};
  };

  torch::Tensor weighted(const std::vector<torch::Tensor>& outputs, size_t number) const {
    const auto weights = weights_[number].unbind(0);
    auto sum = outputs[0] * weights[0];
    for (size_t i = 1; i < outputs.size(); ++i) sum = sum + outputs[i] * weights[i];
    return sum;
  }

  bool recompute_;
  std::vector<double> rates_;
  std::vector<MixerParts> mixers_;
  std::vector<torch::Tensor> weights_;
};
TORCH_MODULE(MixerStage);

class Vim2 : public ImageModel {
 public:
  explicit Vim2(const Vim2Options& options) : options_(options) {
    const size_t count = options.token_layers.size();
    SERPENTINE_CHECK(count >= 1 && options.channel_layers.size() == count, kVim2Who,
                     "token_layers and channel_layers must be of one length, got ", count, " and ",
                     options.channel_layers.size());
    const auto stem =
        register_module("patch_embed", std::make_shared<torch::nn::Module>("patch_embed"));
    stem_ = stem->register_module(
        "proj", torch::nn::Conv2d(
                    torch::nn::Conv2dOptions(options.channels, options.dim, options.patch_size)
                        .stride(options.patch_size)));
    stem_norm_ = MapNorm("ln", options.dim);
    stem->register_module("norm", stem_norm_.module());
    int64_t total = 0;
    for (size_t s = 0; s < count; ++s) total += options.token_layers[s] + options.channel_layers[s];
    const auto rates = drop_path_rates(options.drop_path, total);
    torch::nn::ModuleList stages, mergings;
    int64_t done = 0;
    for (size_t s = 0; s < count; ++s) {
      dims_.push_back(options.dim << s);
      const int64_t size = options.token_layers[s] + options.channel_layers[s];
      stages_.emplace_back(s, dims_[s], options,
                           std::vector<double>(rates.begin() + done, rates.begin() + done + size));
      done += size;
      stages->push_back(stages_.back());
      if (s + 1 == count) break;
      mergings_.emplace_back(dims_[s], 2 * dims_[s]);
      mergings->push_back(mergings_.back());
    }
    register_module("stages", stages);
    register_module("mergings", mergings);
    norm_ = MapNorm("ln", dims_.back());
    register_module("norm", norm_.module());
    head_ = register_module("head", torch::nn::Linear(dims_.back(), options.classes));
    init_swin_style(*this);
    for (const auto& module : modules(/*include_self=*/false))
      if (auto* scan = module->as<RoutedMambaImpl>()) scan->reset();
  }

  torch::Tensor forward_features(const torch::Tensor& images) override {
    return norm_.forward(run(images, nullptr)).mean({1, 2});
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
  torch::Tensor run(const torch::Tensor& images, std::vector<torch::Tensor>* maps) {
    check_shape(kVim2Who, images, "the images", {-1, options_.channels, -1, -1}, "B, C, H, W");
    auto x = stem_norm_.forward(convolve(stem_, channels_last(images)));
    ScanContext context;
    context.training = is_training();
    context.num_layers = 0;
    for (const auto& stage : stages_) context.num_layers += stage->size();
    for (size_t s = 0; s < stages_.size(); ++s) {
      x = stages_[s]->forward(x, context);
      context.layer += stages_[s]->size();
      if (maps != nullptr) maps->push_back(channels_first(x));
      if (s < mergings_.size()) x = mergings_[s](x);
    }
    return x;
  }

  Vim2Options options_;
  std::vector<int64_t> dims_;
  torch::nn::Conv2d stem_{nullptr};
  MapNorm stem_norm_, norm_;
  std::vector<MixerStage> stages_;
  std::vector<PatchMerging> mergings_;
  torch::nn::Linear head_{nullptr};
};

}  // namespace

void add_vim2(Registry<Model>& all) {
  all.add<Vim2Options>("vim2",
                       [](const Vim2Options& options) { return std::make_shared<Vim2>(options); });
}

}  // namespace serpentine
