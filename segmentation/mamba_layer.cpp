#include "segmentation/mamba_layer.h"

#include <ATen/autocast_mode.h>
#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

/// Autocast off while alive: the published layers cast to fp32 against overflow.
class NoAutocast {
 public:
  explicit NoAutocast(at::DeviceType device)
      : device_(device), was_(at::autocast::is_autocast_enabled(device)) {
    at::autocast::set_autocast_enabled(device_, false);
  }
  ~NoAutocast() { at::autocast::set_autocast_enabled(device_, was_); }
  NoAutocast(const NoAutocast&) = delete;
  NoAutocast& operator=(const NoAutocast&) = delete;

 private:
  at::DeviceType device_;
  bool was_;
};

torch::Tensor widened(const torch::Tensor& x) {
  return x.scalar_type() == torch::kDouble ? x : x.to(torch::kFloat);
}

}  // namespace

void MapMambaOptions::fields(Fields& f) {
  f("d_state", d_state, "states a channel", {.least = 1});
  f("d_conv", d_conv, "width of the causal convolution", {.least = 1});
  f("expand", expand, "inner channels as a multiple of the map's", {.least = 0});
  f.nested("scan", scan, "order in which pixels are read; default the published one",
           "serialization");
}

TokenLayout map_layout(const torch::Tensor& map) {
  TokenLayout layout;
  layout.device = map.device();
  layout.depth = map.dim() == 5 ? map.size(2) : 1;
  layout.height = map.size(-2);
  layout.width = map.size(-1);
  layout.num_tokens = layout.depth * layout.height * layout.width;
  return layout;
}

std::shared_ptr<Serialization> map_serialization(const Config& config, const Config& fallback) {
  static const auto* all = [] {
    auto* made = new Registry<Serialization>("serialization");
    add_serializations(*made);
    return made;
  }();
  return build_serialization(*all, config.has("type") ? config : fallback);
}

MapMambaImpl::MapMambaImpl(int64_t d_model, const MapMambaOptions& options,
                           std::shared_ptr<Serialization> strategy, bool channel_tokens)
    : strategy_(std::move(strategy)), channel_tokens_(channel_tokens) {
  norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({d_model})));
  MambaOptions mixer;
  mixer.d_model = d_model;
  mixer.d_state = options.d_state;
  mixer.d_conv = options.d_conv;
  mixer.expand = options.expand;
  mamba =
      register_module("mamba", BranchMamba(mixer, channel_tokens ? 1 : strategy_->num_branches()));
}

torch::Tensor MapMambaImpl::mix(const torch::Tensor& tokens, const TokenLayout& layout) {
  ScanContext context;
  context.training = is_training();
  return mamba(tokens, strategy_->order(layout, context));
}

torch::Tensor MapMambaImpl::forward(const torch::Tensor& map) {
  const NoAutocast fp32(map.device().type());
  const auto x = widened(map);
  const auto flat = x.flatten(2);  // [B, C, T]
  if (channel_tokens_) {
    SERPENTINE_CHECK(flat.size(2) == mamba->options.d_model, "MapMamba",
                     "channels are tokens here, so the map must have the ", mamba->options.d_model,
                     " pixels that the network was built for, got ", flat.size(2),
                     "; feed patches of the size in `input_size`");
    return mamba(norm(flat), identity_order(flat.size(1), map.device())).view(map.sizes());
  }
  const auto mixed = mix(norm(flat.transpose(1, 2)), map_layout(map));
  return mixed.transpose(1, 2).reshape(map.sizes());
}

}  // namespace serpentine
