// VM-UNet: a U of VMamba's first blocks, with skips that are added.
//
// Ruan, Li, Xiang, arXiv 2402.02491, Figure 1. Keys: those of the published VMUNet ("vmunet.*").
// Maps lie channels-last inside: [B, H, W, C].
#include <algorithm>

#include <torch/torch.h>

#include "core/check.h"
#include "core/registry.h"
#include "segmentation/segmentation.h"
#include "vision/vss_block.h"

namespace serpentine {
namespace {

using torch::Tensor;
using torch::nn::Module;

struct VmUNetOptions {
  int64_t in_channels = 3, classes = 1, d_state = 16;
  std::vector<int64_t> dims = {96, 192, 384, 768}, depths = {2, 2, 9, 2},
                       depths_decoder = {2, 9, 2, 2};
  double drop_path = 0.2;
  bool sigmoid = false;
  Config scan;
  void fields(Fields& f) {
    f("in_channels", in_channels, "channels of the input; 1 is repeated to 3", {.least = 1});
    f("classes", classes, "channels of the output", {.least = 1});
    f("dims", dims, "channels of each stage of the encoder", {.least = 1});
    f("depths", depths, "blocks of each stage of the encoder", {.least = 1});
    f("depths_decoder", depths_decoder, "blocks of each stage of the decoder, the coarsest first",
      {.least = 1});
    f("d_state", d_state, "states a channel", {.least = 1});
    f("drop_path", drop_path, "probability that the last block is skipped",
      {.least = 0, .most = 0.99});
    f("sigmoid", sigmoid, "chances instead of logits for one class, as published");
    f.nested("scan", scan, "routes over the map; default cross", "serialization");
  }
};

/// C -> factor^2 C' by a linear layer, then factor x factor pixels of C'. Keys expand, norm.
class PatchExpandImpl : public Module {
 public:
  PatchExpandImpl(int64_t in, int64_t wide, int64_t factor) : factor_(factor) {
    expand_ = register_module("expand",
                              torch::nn::Linear(torch::nn::LinearOptions(in, wide).bias(false)));
    norm_ = register_module(
        "norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({wide / (factor * factor)})));
  }
  Tensor forward(const Tensor& map) {
    const int64_t B = map.size(0), H = map.size(1), W = map.size(2), f = factor_;
    const auto wide = expand_(map).view({B, H, W, f, f, -1});
    return norm_(wide.permute({0, 1, 3, 2, 4, 5}).reshape({B, H * f, W * f, -1}));
  }

 private:
  int64_t factor_;
  torch::nn::Linear expand_{nullptr};
  torch::nn::LayerNorm norm_{nullptr};
};
TORCH_MODULE(PatchExpand);

/// Blocks of one width. Keys blocks.I.*, and whatever its owner adds.
class VmStageImpl : public Module {
 public:
  VmStageImpl(const VmUNetOptions& options, int64_t width, const std::vector<double>& drop) {
    const auto holder = std::make_shared<Module>();
    for (size_t i = 0; i < drop.size(); ++i) {
      VssBlockOptions block;
      block.ssm.d_model = width;
      block.ssm.d_state = options.d_state;
      block.ssm.forward_type = "v0";
      block.ssm.scan = options.scan;
      block.mlp_ratio = 0;
      block.drop_path = drop[i];
      block.first_names = true;
      blocks_.push_back(holder->register_module(std::to_string(i), VssBlock(block)));
    }
    register_module("blocks", holder);
  }
  Tensor forward(Tensor map, std::map<std::string, Tensor>* trace, const std::string& name) {
    ScanContext context;
    context.training = is_training();
    for (size_t i = 0; i < blocks_.size(); ++i) {
      Trace inner;
      blocks_[i]->trace = trace != nullptr ? &inner : nullptr;
      map = blocks_[i](map, context);
      blocks_[i]->trace = nullptr;
      if (trace == nullptr) continue;
      const std::string block = name + ".block" + std::to_string(i);
      (*trace)[block] = map;
      if (inner.count("op_out") > 0) (*trace)[block + ".ss2d"] = inner["op_out"];
    }
    return map;
  }

  PatchMerging down{nullptr};  // behind the blocks
  PatchExpand up{nullptr};     // before the blocks

 private:
  std::vector<VssBlock> blocks_;
};
TORCH_MODULE(VmStage);

class VmUNet : public Model {
 public:
  explicit VmUNet(const VmUNetOptions& options) : options_(options) {
    const size_t stages = options.dims.size();
    SERPENTINE_CHECK(
        stages >= 2 && options.depths.size() == stages && options.depths_decoder.size() == stages,
        "vmunet", "dims, depths and depths_decoder need one entry a stage, got ", stages, ", ",
        options.depths.size(), " and ", options.depths_decoder.size());
    SERPENTINE_CHECK(options.dims[0] % 4 == 0, "vmunet", "dims must begin with a multiple of 4");
    const auto inner = register_module("vmunet", std::make_shared<Module>());
    const auto embed = inner->register_module("patch_embed", std::make_shared<Module>());
    const int64_t channels = options.in_channels == 1 ? 3 : options.in_channels;
    proj_ = embed->register_module(
        "proj",
        torch::nn::Conv2d(torch::nn::Conv2dOptions(channels, options.dims[0], 4).stride(4)));
    norm_ = embed->register_module(
        "norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({options.dims[0]})));

    const auto downs = inner->register_module("layers", std::make_shared<Module>());
    auto rates = rates_of(options.depths);
    for (size_t s = 0; s < stages; ++s) {
      down_.push_back(
          downs->register_module(std::to_string(s), VmStage(options, options.dims[s], rates[s])));
      if (s + 1 == stages) break;
      down_[s]->down = down_[s]->register_module(
          "downsample", PatchMerging(options.dims[s], options.dims[s + 1]));
    }
    const auto ups = inner->register_module("layers_up", std::make_shared<Module>());
    rates = rates_of(options.depths_decoder, true);  // falls again towards the output
    for (size_t s = 0; s < stages; ++s) {
      const int64_t width = options.dims[stages - 1 - s];
      up_.push_back(ups->register_module(std::to_string(s), VmStage(options, width, rates[s])));
      if (s == 0) continue;
      up_[s]->up =
          up_[s]->register_module("upsample", PatchExpand(options.dims[stages - s], 4 * width, 2));
    }
    last_ =
        inner->register_module("final_up", PatchExpand(options.dims[0], 4 * options.dims[0], 4));
    head_ = inner->register_module("final_conv", torch::nn::Conv2d(torch::nn::Conv2dOptions(
                                                     options.dims[0] / 4, options.classes, 1)));
    init_swin_style(*this);
  }

  Tensor forward(const Batch& batch) override {
    auto x = batch.input;
    const int64_t multiple = int64_t{4} << (down_.size() - 1);
    SERPENTINE_CHECK(x.dim() == 4 && x.size(1) == options_.in_channels, "vmunet",
                     "the input must be [B, ", options_.in_channels, ", H, W], got ", x.sizes());
    SERPENTINE_CHECK(x.size(2) % multiple == 0 && x.size(3) % multiple == 0, "vmunet",
                     "height and width must be multiples of ", multiple, ", got ", x.size(2), " x ",
                     x.size(3));
    if (x.size(1) == 1) x = x.expand({-1, 3, -1, -1});
    auto map = norm_(channels_last(proj_(x)));
    leave_trace("after_patch_embed", map);
    std::vector<Tensor> skips;
    for (size_t s = 0; s < down_.size(); ++s) {
      const std::string name = "enc" + std::to_string(s);
      skips.push_back(map);
      map = down_[s]->forward(map, trace, name);
      if (down_[s]->down) map = down_[s]->down(map);
      leave_trace(name, map);
    }
    for (size_t s = 0; s < up_.size(); ++s) {
      const std::string name = "dec" + std::to_string(s);
      if (s > 0) {
        map = up_[s]->up(map + skips[skips.size() - s]);
        leave_trace(name + ".upsample", map);
      }
      map = up_[s]->forward(map, trace, name);
      leave_trace(name, map);
    }
    map = last_(map);
    leave_trace("final_up", map);
    const auto logits = head_(channels_first(map));
    leave_trace("logits", logits);
    return options_.sigmoid && options_.classes == 1 ? torch::sigmoid(logits) : logits;
  }

 private:
  std::vector<std::vector<double>> rates_of(const std::vector<int64_t>& depths,
                                            bool falling = false) const {
    int64_t count = 0;
    for (const int64_t depth : depths) count += depth;
    auto all = drop_path_rates(options_.drop_path, count);
    if (falling) std::reverse(all.begin(), all.end());
    std::vector<std::vector<double>> parts;
    auto at = all.begin();
    for (const int64_t depth : depths) {
      parts.emplace_back(at, at + depth);
      at += depth;
    }
    return parts;
  }

  VmUNetOptions options_;
  torch::nn::Conv2d proj_{nullptr}, head_{nullptr};
  torch::nn::LayerNorm norm_{nullptr};
  std::vector<VmStage> down_, up_;
  PatchExpand last_{nullptr};
};

}  // namespace

void add_vmunet(Registry<Model>& all) {
  all.add<VmUNetOptions>(
      "vmunet", [](const VmUNetOptions& options) { return std::make_shared<VmUNet>(options); });
}

}  // namespace serpentine
