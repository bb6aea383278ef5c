// ShuffleMamba: Vim's layers with the class token first or registers spread among the patches; in
// training, deeper layers see the tokens shuffled more often.
//
// Huang et al., "Stochastic Layer-Wise Shuffle", arXiv 2408.17081; registers: Wang et al.,
// "Mamba-Reg", arXiv 2405.14858. Keys as huangzizheng01/ShuffleMamba's models_shuffle and
// models_reg.
// differs: the reference's initialisation overwrites that of the step sizes; `published_init` does
// so too.
#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "vision/image_model.h"
#include "vision/map_layers.h"
#include "vision/patch_sequence.h"
#include "vision/vision.h"

namespace serpentine {
namespace {

constexpr const char* kShuffleMambaWho = "shuffle_mamba";
constexpr double kShuffleMambaSpread = 0.02;  // of initial weights

struct ShuffleMambaOptions : ImageModelOptions {
  std::string size;
  PatchOptions patch;
  int64_t dim = 576, depth = 32, registers = 0, register_reduce = 1;
  bool rms_norm = false, residual_in_fp32 = true, published_init = false;
  double drop_path = 0.1, shuffle_rate = 0.5;
  MambaOptions mamba;
  Config scan;

  void fields(Fields& f) {
    f("size", size, "a published configuration, which the keys below may change",
      {.choices = {"", "middle", "base", "reg_small", "reg_base", "reg_large"}});
    if (!size.empty()) {
      const bool reg = size.starts_with("reg_"), large = size == "reg_large";
      dim = size == "middle" ? 576 : size == "reg_small" ? 384 : large ? 1024 : 768;
      depth = size == "middle" ? 32 : large ? 48 : 24;
      rms_norm = size != "middle";
      registers = !reg ? 0 : large ? 16 : 12;
      register_reduce = !reg ? 1 : large ? 8 : size == "reg_base" ? 4 : 2;
      drop_path = 0.5;
      shuffle_rate = reg ? 0.1 : 0.5;
    }
    ImageModelOptions::fields(f);
    patch.fields(f);
    f("dim", dim, "channels", {.least = 1});
    f("depth", depth, "layers", {.least = 1});
    f("registers", registers, "register tokens spread among the patches; 0: one class token, first",
      {.least = 0});
    f("register_reduce", register_reduce,
      "each register is projected to dim over this before the head reads all of them",
      {.least = 1});
    f("rms_norm", rms_norm, "RMSNorm, else LayerNorm");
    f("residual_in_fp32", residual_in_fp32, "the residual stream stays float32");
    f("drop_path", drop_path, "of the last layer; it grows linearly from 0",
      {.least = 0, .most = 0.99});
    f("shuffle_rate", shuffle_rate,
      "probability that training shuffles the tokens of the last layer; it grows linearly from 0",
      {.least = 0, .most = 1});
    f("published_init", published_init,
      "as the authors' program, which loses the initial step sizes");
    f.group("mamba", mamba, "the mixers");
    f.nested("scan", scan, "the order of the patches; default: the sequence and its reverse",
             "serialization");
  }

  VimStackOptions stack() const {
    VimStackOptions stack;
    stack.dim = dim;
    stack.depth = depth;
    stack.rms_norm = rms_norm;
    stack.residual_in_fp32 = residual_in_fp32;
    stack.drop_path = drop_path;
    stack.mixer.mamba = mamba;
    stack.shuffle_rate = shuffle_rate;
    stack.recompute = recompute;
    stack.classes = class_tokens();
    stack.scan = scan;
    return stack;
  }
  ClassTokens class_tokens() const {
    if (registers == 0) return {"first", 1};
    return {"spread", registers};
  }
};

class ShuffleMamba : public ImageModel {
 public:
  explicit ShuffleMamba(const ShuffleMambaOptions& options)
      : options_(options), classes_(options.class_tokens()) {
    const int64_t dim = options.dim, count = classes_.number();
    grid_h_ = options.patch.tokens(options.height());
    grid_w_ = options.patch.tokens(options.width());
    patch_embed_ =
        register_module("patch_embed", PatchSequence(options.channels, dim, options.patch));
    cls_token_ = register_parameter("cls_token", torch::zeros({1, count, dim}));
    const int64_t patches = grid_h_ * grid_w_;
    const bool reg = options.registers > 0;
    pos_embed_ =
        register_parameter("pos_embed", torch::zeros({1, reg ? patches : patches + 1, dim}));
    if (reg) pos_embed_cls_ = register_parameter("pos_embed_cls", torch::zeros({1, count, dim}));
    stack_ = std::make_unique<VimStack>(*this, options.stack());
    if (options.register_reduce > 1) {
      SERPENTINE_CHECK(dim % options.register_reduce == 0 && reg, kShuffleMambaWho,
                       "register_reduce needs registers and must divide dim = ", dim, ", got ",
                       options.register_reduce);
      neck_ = register_module(
          "neck", torch::nn::Linear(
                      torch::nn::LinearOptions(dim, dim / options.register_reduce).bias(false)));
      norm_neck_ = register_module(
          "norm_neck", Norm(num_features(), options.rms_norm ? NormKind::kRms : NormKind::kLayer));
    }
    head_ = register_module("head", torch::nn::Linear(num_features(), options.classes));
    init();
  }

  torch::Tensor forward_features(const torch::Tensor& images) override {
    int64_t height = 0, width = 0;
    const auto x = run(images, height, width, {});
    std::vector<torch::Tensor> tokens;
    for (const int64_t place : classes_.places(height * width))
      tokens.push_back(x.select(1, place));
    if (tokens.size() == 1 && !neck_) return tokens[0];
    const auto all = torch::stack(tokens, 1);  // [B, count, dim]
    return neck_ ? norm_neck_(neck_(all).flatten(1)) : all.flatten(1);
  }
  torch::Tensor forward_head(const torch::Tensor& features) override { return head_(features); }
  int64_t num_features() const override {
    return options_.dim / options_.register_reduce * classes_.number();
  }

  std::vector<torch::Tensor> forward_maps(const torch::Tensor& images) override {
    int64_t height = 0, width = 0;
    const auto x = run(images, height, width, {});
    return {without_classes(x, classes_, height, width)};
  }
  std::vector<int64_t> map_channels() const override { return {options_.dim}; }

  StateDict adapt(StateDict weights) const override;

 private:
  void init() {
    const torch::NoGradGuard no_grad;
    if (options_.published_init) init_swin_style(*this);
    pos_embed_.normal_(0, kShuffleMambaSpread);
    if (pos_embed_cls_.defined()) pos_embed_cls_.normal_(0, kShuffleMambaSpread);
    if (!options_.published_init) cls_token_.normal_(0, kShuffleMambaSpread);
    if (neck_) neck_->weight.normal_(0, kShuffleMambaSpread);
    head_->weight.normal_(0, kShuffleMambaSpread);
    head_->bias.zero_();
  }

  torch::Tensor run(const torch::Tensor& images, int64_t& height, int64_t& width,
                    const VimStack::OnLayer& on_layer) {
    check_shape(kShuffleMambaWho, images, "the images", {-1, options_.channels, -1, -1},
                "B, C, H, W");
    height = options_.patch.tokens(images.size(2));
    width = options_.patch.tokens(images.size(3));
    auto x = patch_embed_(images);
    leave_trace("after_patch_embed", x);
    const bool reg = options_.registers > 0;
    const auto positions = resized_positions(pos_embed_, grid_h_, grid_w_, height, width,
                                             reg ? ExtraRows::kNone : ExtraRows::kFirst);
    if (reg) {
      x = with_class_tokens(x + positions, (cls_token_ + pos_embed_cls_).split(1, 1), classes_);
    } else {
      x = with_class_tokens(x, {cls_token_}, classes_) + positions;
    }
    const auto leave = [&](int64_t layer, const Streams& streams, const Trace& mixer) {
      if (on_layer) on_layer(layer, streams, mixer);
      const std::string name = "block" + std::to_string(layer) + ".";
      leave_trace(name + "hidden", streams.hidden);
      leave_trace(name + "residual", streams.residual);
      for (const auto& [part, tensor] : mixer) leave_trace(name + part, tensor);
    };
    return stack_->forward(x, height, width, is_training(), nullptr, false,
                           trace != nullptr ? VimStack::OnLayer(leave) : VimStack::OnLayer());
  }

  ShuffleMambaOptions options_;
  ClassTokens classes_;
  int64_t grid_h_ = 0, grid_w_ = 0;
  PatchSequence patch_embed_{nullptr};
  torch::Tensor cls_token_, pos_embed_, pos_embed_cls_;
  std::unique_ptr<VimStack> stack_;
  torch::nn::Linear neck_{nullptr}, head_{nullptr};
  Norm norm_neck_{nullptr};
};

// positions of another, square image size
StateDict ShuffleMamba::adapt(StateDict weights) const {
  const bool reg = options_.registers > 0;
  for (auto& [name, tensor] : weights) {
    if (name != "pos_embed" || tensor.dim() != 3 || tensor.sizes() == pos_embed_.sizes()) continue;
    const int64_t patches = tensor.size(1) - (reg ? 0 : 1);
    const auto side = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(patches))));
    if (side * side == patches)
      tensor = resized_positions(tensor.to(torch::kFloat), side, side, grid_h_, grid_w_,
                                 reg ? ExtraRows::kNone : ExtraRows::kFirst);
  }
  return weights;
}

}  // namespace

void add_shuffle_mamba(Registry<Model>& all) {
  all.add<ShuffleMambaOptions>("shuffle_mamba", [](const ShuffleMambaOptions& options) {
    return std::make_shared<ShuffleMamba>(options);
  });
}

}  // namespace serpentine
