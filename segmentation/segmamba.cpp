// SegMamba: a 3-D network whose encoder scans each map in three ways.
//
// Xing et al., arXiv 2401.13560, Figure 2. Keys: those of the published SegMamba.
#include <torch/torch.h>

#include "core/check.h"
#include "core/registry.h"
#include "segmentation/mamba_layer.h"
#include "segmentation/network.h"
#include "segmentation/segmentation.h"

namespace serpentine {
namespace {

using torch::Tensor;
using torch::nn::Module;

const Extent kOne = {1, 1, 1}, kTwo = {2, 2, 2}, kThree = {3, 3, 3};

struct SegMambaOptions {
  int64_t in_channels = 1, classes = 2, hidden = 768;
  std::vector<int64_t> depths = {2, 2, 2, 2}, features = {48, 96, 192, 384}, slices;
  MapMambaOptions mixer;
  void fields(Fields& f) {
    f("in_channels", in_channels, "channels (modalities) of the input", {.least = 1});
    f("classes", classes, "channels of the output", {.least = 1});
    f("depths", depths, "Mamba layers of each of the four stages", {.least = 1});
    f("features", features, "channels of each of the four stages", {.least = 1});
    f("hidden", hidden, "channels at the bottom", {.least = 1});
    f("slices", slices,
      "parts of the inter-slice scan of each stage; default the depth of the stage's map, which is "
      "the published 64, 32, 16, 8 for patches of 128",
      {.least = 0});
    mixer.fields(f);
  }
};

/// Gated spatial convolution, with a residual. Keys proj, proj2, proj3, proj4.
class GatedSpatialImpl : public Module {
 public:
  explicit GatedSpatialImpl(int64_t channels) {
    proj_ = register_module("proj", ConvNd(channels, channels, kThree, kOne, true));
    proj2_ = register_module("proj2", ConvNd(channels, channels, kThree, kOne, true));
    proj3_ = register_module("proj3", ConvNd(channels, channels, kOne, kOne, true));
    proj4_ = register_module("proj4", ConvNd(channels, channels, kOne, kOne, true));
  }
  Tensor forward(const Tensor& x) {
    const auto unit = [](ConvNd& conv, const Tensor& in) {
      return plain_instance_norm(conv(in), 0);
    };
    const auto deep = unit(proj2_, unit(proj_, x));
    return unit(proj4_, deep + unit(proj3_, x)) + x;
  }

 private:
  ConvNd proj_{nullptr}, proj2_{nullptr}, proj3_{nullptr}, proj4_{nullptr};
};
TORCH_MODULE(GatedSpatial);

/// 1x1 convolutions around a GELU. Keys fc1, fc2.
class ChannelMlpImpl : public Module {
 public:
  explicit ChannelMlpImpl(int64_t channels) {
    fc1_ = register_module("fc1", ConvNd(channels, 2 * channels, kOne, kOne, true));
    fc2_ = register_module("fc2", ConvNd(2 * channels, channels, kOne, kOne, true));
  }
  Tensor forward(const Tensor& x) { return fc2_(torch::gelu(fc1_(x))); }

 private:
  ConvNd fc1_{nullptr}, fc2_{nullptr};
};
TORCH_MODULE(ChannelMlp);

class SegMambaEncoderImpl : public Module {
 public:
  explicit SegMambaEncoderImpl(const SegMambaOptions& options) {
    const auto downs = std::make_shared<Module>(), gates = std::make_shared<Module>(),
               stages = std::make_shared<Module>(), mlps = std::make_shared<Module>();
    int64_t in = options.in_channels;
    for (size_t s = 0; s < 4; ++s) {
      const int64_t width = options.features[s];
      const auto name = std::to_string(s);
      const auto down = std::make_shared<Module>();
      auto conv = s == 0 ? ConvNd(in, width, Extent{7, 7, 7}, kTwo, true)
                         : ConvNd(in, width, kTwo, kTwo, true);
      downs_.push_back(down->register_module(s == 0 ? "0" : "1", conv));
      downs->register_module(name, down);
      gates_.push_back(gates->register_module(name, GatedSpatial(width)));
      mlps_.push_back(mlps->register_module(name, ChannelMlp(width)));
      const int64_t slices = options.slices.empty() ? 0 : options.slices[s];
      const auto walk = map_serialization(
          options.mixer.scan,
          Config::parse("{type: tri_orientated, slices: " + std::to_string(slices) + "}"));
      const auto stage = std::make_shared<Module>();
      layers_.emplace_back();
      for (int64_t i = 0; i < options.depths[s]; ++i) {
        layers_.back().push_back(
            stage->register_module(std::to_string(i), MapMamba(width, options.mixer, walk)));
      }
      stages->register_module(name, stage);
      in = width;
    }
    register_module("downsample_layers", downs);
    register_module("gscs", gates);
    register_module("stages", stages);
    register_module("mlps", mlps);
  }

  std::vector<Tensor> forward(Tensor x, std::map<std::string, Tensor>* trace) {
    const auto leave = [&](const std::string& name, const Tensor& tensor) {
      if (trace != nullptr) (*trace)[name] = tensor;
    };
    std::vector<Tensor> outputs;
    for (size_t s = 0; s < 4; ++s) {
      const auto name = std::to_string(s);
      x = gates_[s](downs_[s](s == 0 ? x : plain_instance_norm(x)));
      leave("vit.gsc" + name, x);
      for (size_t i = 0; i < layers_[s].size(); ++i) {
        const auto added = layers_[s][i](x);
        leave("vit.stage" + name + ".layer" + std::to_string(i) + ".mamba_out",
              added.flatten(2).transpose(1, 2));
        x = x + added;
        leave("vit.stage" + name + ".layer" + std::to_string(i), x);
      }
      outputs.push_back(mlps_[s](plain_instance_norm(x)));
      leave("vit.out" + name, outputs.back());
    }
    return outputs;
  }

 private:
  std::vector<ConvNd> downs_;
  std::vector<GatedSpatial> gates_;
  std::vector<std::vector<MapMamba>> layers_;
  std::vector<ChannelMlp> mlps_;
};
TORCH_MODULE(SegMambaEncoder);

/// A convolution one level down, as MONAI names it. Keys conv.*.
std::shared_ptr<Module> wrapped(const ConvNd& conv) {
  auto holder = std::make_shared<Module>();
  holder->register_module("conv", conv);
  return holder;
}

/// Two 3^3 convolutions and a shortcut, norms without parameters. Keys convI.conv.weight.
class ResBlockImpl : public Module {
 public:
  ResBlockImpl(int64_t in, int64_t out)
      : conv1_(in, out, kThree, kOne, false), conv2_(out, out, kThree, kOne, false) {
    register_module("conv1", wrapped(conv1_));
    register_module("conv2", wrapped(conv2_));
    if (in == out) return;
    conv3_ = ConvNd(in, out, kOne, kOne, false);
    register_module("conv3", wrapped(conv3_));
  }
  Tensor forward(const Tensor& x) {
    auto y = plain_instance_norm(conv1_(x), kSlope);
    y = plain_instance_norm(conv2_(y));
    return torch::leaky_relu(y + (conv3_ ? plain_instance_norm(conv3_(x)) : x), kSlope);
  }

 private:
  ConvNd conv1_, conv2_, conv3_{nullptr};
};
TORCH_MODULE(ResBlock);

/// Keys transp_conv.conv.weight, conv_block.*.
class UpBlockImpl : public Module {
 public:
  UpBlockImpl(int64_t in, int64_t out) : expand_(in, out, kTwo, false) {
    const auto holder = std::make_shared<Module>();
    holder->register_module("conv", expand_);
    register_module("transp_conv", holder);
    block_ = register_module("conv_block", ResBlock(2 * out, out));
  }
  Tensor forward(const Tensor& x, const Tensor& skip) {
    return block_(torch::cat({expand_(x), skip}, 1));
  }

 private:
  ExpandNd expand_;
  ResBlock block_{nullptr};
};
TORCH_MODULE(UpBlock);

class SegMamba : public Model {
 public:
  explicit SegMamba(const SegMambaOptions& options) : options_(options) {
    for (const auto* list : {&options.depths, &options.features}) {
      SERPENTINE_CHECK(list->size() == 4, "segmamba", "depths and features need 4 entries, got ",
                       list->size());
    }
    SERPENTINE_CHECK(options.slices.empty() || options.slices.size() == 4, "segmamba",
                     "slices needs 4 entries, got ", options.slices.size());
    const auto& width = options.features;
    vit_ = register_module("vit", SegMambaEncoder(options));
    const std::vector<int64_t> in = {options.in_channels, width[0], width[1], width[2], width[3]},
                               out = {width[0], width[1], width[2], width[3], options.hidden};
    for (size_t s = 0; s < 5; ++s)
      encoders_.push_back(block("encoder" + std::to_string(s + 1), in[s], out[s]));
    for (size_t s = 4; s >= 1; --s) {
      ups_.push_back(
          register_module("decoder" + std::to_string(s + 1), UpBlock(out[s], out[s - 1])));
    }
    last_ = block("decoder1", width[0], width[0]);
    head_ = ConvNd(width[0], options.classes, kOne, kOne, true);
    const auto holder = std::make_shared<Module>();
    holder->register_module("conv", wrapped(head_));
    register_module("out", holder);
  }

  Tensor forward(const Batch& batch) override {
    const auto& x = batch.input;
    SERPENTINE_CHECK(x.dim() == 5 && x.size(1) == options_.in_channels, "segmamba",
                     "the input must be [B, ", options_.in_channels, ", D, H, W], got ", x.sizes());
    for (int64_t axis = 2; axis < 5; ++axis) {
      SERPENTINE_CHECK(x.size(axis) % 16 == 0, "segmamba",
                       "every axis of the input must be a multiple of 16, got ", x.sizes().slice(2),
                       "; plan with such a patch (data.patch, or `segment plan "
                       "--patch`)");
    }
    const auto outs = vit_->forward(x, trace);
    std::vector<Tensor> skips = {encoders_[0](x)};
    for (size_t s = 1; s < 5; ++s) skips.push_back(encoders_[s](outs[s - 1]));
    leave_trace("encoder5", skips.back());
    Tensor y = skips.back();
    for (size_t s = 0; s < ups_.size(); ++s) {
      y = ups_[s]->forward(y, skips[3 - s]);
      if (s == 0) leave_trace("decoder5", y);
    }
    return head_(last_(y));
  }

 private:
  ResBlock block(const std::string& name, int64_t in, int64_t out) {
    const auto holder = std::make_shared<Module>();
    ResBlock made(in, out);
    holder->register_module("layer", made);
    register_module(name, holder);
    return made;
  }

  SegMambaOptions options_;
  SegMambaEncoder vit_{nullptr};
  std::vector<ResBlock> encoders_;
  std::vector<UpBlock> ups_;
  ResBlock last_{nullptr};
  ConvNd head_{nullptr};
};

}  // namespace

void add_segmamba(Registry<Model>& all) {
  all.add<SegMambaOptions>("segmamba", [](const SegMambaOptions& options) {
    return std::make_shared<SegMamba>(options);
  });
}

}  // namespace serpentine
