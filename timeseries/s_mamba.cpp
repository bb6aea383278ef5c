// S-Mamba: variates as tokens, mixed by one Mamba in either direction.
//
// Wang et al., "Is Mamba Effective for Time Series Forecasting?", arXiv 2403.11144, Figure 2. Keys
// and init as in wzhwzhwzh0921/S-D-Mamba.
#include <torch/torch.h>

#include "core/nn/mamba.h"
#include "timeseries/inverted.h"
#include "timeseries/timeseries.h"

namespace serpentine {
namespace {

struct SMambaOptions : InvertedOptions {
  int64_t d_state = 32;      // N, states a channel
  int64_t d_conv = 2;        // width of the convolution over variates
  double expand = 1;         // inner channels = expand * d_model
  int64_t unused_width = 0;  // of what the reference owns and never uses; 0: not kept

  void fields(Fields& f) {
    InvertedOptions::fields(f);
    f("d_state", d_state, "states a channel", {.least = 1});
    f("d_conv", d_conv, "width of the convolution over variates", {.least = 2, .most = 7});
    f("expand", expand, "inner channels over d_model", {.least = 0.01});
    f("unused_width", unused_width,
      "keep the reference's unused man, man2 and a, which are 11 wide; 0: leave them out",
      {.least = 0});
  }

  MambaOptions mamba() const {
    MambaOptions out;
    out.d_model = d_model;
    out.d_state = d_state;
    out.d_conv = d_conv;
    out.expand = expand;
    return out;
  }
};

// a buffer under a dotted name, with a module for each part
void add_buffer(torch::nn::Module& root, const std::string& name, at::IntArrayRef shape) {
  const size_t dot = name.find('.');
  if (dot == std::string::npos) {
    root.register_buffer(name, torch::zeros(shape));
    return;
  }
  const std::string part = name.substr(0, dot);
  auto child = root.named_children().find(part);
  auto module =
      child ? *child : root.register_module(part, std::make_shared<torch::nn::Module>(part));
  add_buffer(*module, name.substr(dot + 1), shape);
}

// what the reference's layers own beside what they use: two Mambas and an attention, 11 wide
void add_unused(torch::nn::Module& layer, int64_t width) {
  constexpr int64_t kState = 16, kConv = 2;
  const int64_t rank = (width + 15) / 16;
  for (const std::string mamba : {"man", "man2"}) {
    add_buffer(layer, mamba + ".A_log", {width, kState});
    add_buffer(layer, mamba + ".D", {width});
    add_buffer(layer, mamba + ".in_proj.weight", {2 * width, width});
    add_buffer(layer, mamba + ".conv1d.weight", {width, 1, kConv});
    add_buffer(layer, mamba + ".conv1d.bias", {width});
    add_buffer(layer, mamba + ".x_proj.weight", {rank + 2 * kState, width});
    add_buffer(layer, mamba + ".dt_proj.weight", {width, rank});
    add_buffer(layer, mamba + ".dt_proj.bias", {width});
    add_buffer(layer, mamba + ".out_proj.weight", {width, width});
  }
  for (const std::string part : {"query", "key", "value", "out"}) {
    add_buffer(layer, "a." + part + "_projection.weight", {width, width});
    add_buffer(layer, "a." + part + "_projection.bias", {width});
  }
}

class SMambaLayer : public InvertedLayer {
 public:
  explicit SMambaLayer(const SMambaOptions& options) : InvertedLayer(options) {
    attention = register_module("attention", Mamba(options.mamba()));
    attention_r = register_module("attention_r", Mamba(options.mamba()));
    if (options.unused_width > 0) add_unused(*this, options.unused_width);
  }

  torch::Tensor mix(const torch::Tensor& x) override {
    if (order_.num_tokens != x.size(1) || order_.tokens.device() != x.device()) {
      order_ = identity_order(x.size(1), x.device());
      reversed_ = reversed(order_);
    }
    const torch::Tensor ahead = attention->forward(x, order_),
                        back = attention_r->forward(x, reversed_);
    record("mamba_fwd", ahead);
    record("mamba_bwd_flipped", back.flip(1));
    return ahead + back;
  }

 private:
  Mamba attention{nullptr}, attention_r{nullptr};  // under the reference's names
  ScanOrder order_, reversed_;                     // of the last number of tokens
};

class SMamba : public InvertedForecaster {
 public:
  explicit SMamba(const SMambaOptions& chosen)
      : InvertedForecaster("s_mamba", chosen,
                           [&] { return std::make_shared<SMambaLayer>(chosen); }) {}

  std::vector<std::string> tolerated_keys() const override {
    std::vector<std::string> keys;
    for (size_t i = 0; i < layers.size(); ++i) {
      const std::string layer = "encoder.attn_layers." + std::to_string(i) + ".";
      for (const char* part : {"man.", "man2.", "a."}) keys.push_back(layer + part);
    }
    return keys;
  }
};

}  // namespace

void add_s_mamba(Registry<Model>& all) {
  all.add<SMambaOptions>(
      "s_mamba", [](const SMambaOptions& options) { return std::make_shared<SMamba>(options); });
}

}  // namespace serpentine
