// Vim: a plain sequence of patches with a class token, read both ways.
//
// Zhu et al., "Vision Mamba", arXiv 2401.09417, Figure 2 and Algorithm 1. Keys, variants and init
// as hustvl/Vim's VisionMamba.
#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "vision/image_model.h"
#include "vision/local_directions.h"
#include "vision/patch_sequence.h"
#include "vision/vim_stack.h"
#include "vision/vision.h"

namespace serpentine {
namespace {

constexpr const char* kVimWho = "vim";
constexpr double kVimSpread = 0.02;  // of the initial class tokens, positions and head

struct VimOptions : ImageModelOptions {
  std::string size;
  PatchOptions patch;
  int64_t dim = 192, depth = 24;
  std::string class_token = "middle", pool = "none", bimamba = "v2", resize = "published";
  bool pos_embed = true, rope = false, rope_residual = false, rms_norm = true;
  bool residual_in_fp32 = true, divide_out = true, pairs = false;
  double drop_path = 0.1, dropout = 0, layer_scale = 0, shuffle_rate = 0;
  std::vector<std::string> directions;
  MambaOptions mamba;
  Config scan;

  void fields(Fields& f) {
    f("size", size, "a published configuration, which the keys below may change; plus: stride 8",
      {.choices = {"", "tiny", "small", "base", "tiny_plus", "small_plus"}});
    if (!size.empty()) {
      dim = size.starts_with("base") ? 768 : size.starts_with("small") ? 384 : 192;
      drop_path = size.starts_with("tiny") ? 0 : 0.05;
      patch.stride = size.ends_with("_plus") ? 8 : 16;
    }
    ImageModelOptions::fields(f);
    patch.fields(f);
    f("dim", dim, "channels", {.least = 1});
    f("depth", depth, "layers", {.least = 1});
    f("class_token", class_token,
      "first, middle (before patch M / 2), both (their mean is read), or none",
      {.choices = {"first", "middle", "both", "none"}});
    f("pool", pool,
      "without a class token: none (the last token), mean, max (over the logits), all (logits of "
      "each token)",
      {.choices = {"none", "mean", "max", "all"}});
    f("bimamba", bimamba, "v2: each direction its own; v1: the directions share all but A; none",
      {.choices = {"v1", "v2", "none"}});
    f("divide_out", divide_out, "v2: the mean of the directions, else their sum");
    f("bidirectional_pairs", pairs, "layers in twos, the second over the reverse, results added");
    f("pos_embed", pos_embed, "learned positions, sized for image_size");
    f("pos_embed_resize", resize,
      "of weights for another image size: published (row 0 is kept, the others are a square) or "
      "correct (the class token's own row is)",
      {.choices = {"published", "correct"}});
    f("rope", rope, "rotary positions before each layer; square image_size");
    f("rope_residual", rope_residual, "of the residual stream too");
    f("rms_norm", rms_norm, "RMSNorm, else LayerNorm");
    f("residual_in_fp32", residual_in_fp32, "the residual stream stays float32");
    f("drop_path", drop_path, "of the last layer; it grows linearly from 0",
      {.least = 0, .most = 0.99});
    f("dropout", dropout, "after the positions", {.least = 0, .most = 0.99});
    f("layer_scale", layer_scale, "initial scale of each layer's output; 0: none", {.least = 0});
    f("shuffle_rate", shuffle_rate,
      "probability that training shuffles the tokens of the last layer; it grows linearly from 0",
      {.least = 0, .most = 1});
    f("directions", directions,
      "LocalMamba's mixer (keys as in LocalVim): a branch each for h rows, v columns, wN windows "
      "of "
      "N tokens, with _flip from the end, and a gate on channels");
    f.group("mamba", mamba, "the mixers");
    f.nested("scan", scan,
             "the order of the patches, each branch with its own parameters; class tokens are put "
             "into each sequence; default: the sequence, and with v2 its reverse",
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
    stack.mixer.directions = bimamba == "v1" ? Directions::kShared : Directions::kOwn;
    stack.mixer.mean = bimamba == "v2" && divide_out;
    stack.mixer.layer_scale = layer_scale;
    stack.both_ways = bimamba == "v2";
    stack.pairs = pairs;
    stack.shuffle_rate = shuffle_rate;
    stack.recompute = recompute;
    stack.classes.position = class_token;
    stack.scan = scan;
    if (directions.empty()) return stack;
    SERPENTINE_CHECK(bimamba == "v2" && !scan.has("type"), kVimWho,
                     "directions need bimamba v2 and take the place of `scan`");
    stack.scan = Config::parse(directions_scan(directions), "directions");
    stack.mixer.naming = BranchNames::kNumbered;
    stack.mixer.channel_gate = true;
    return stack;
  }
};

class Vim : public ImageModel {
 public:
  explicit Vim(const VimOptions& options) : options_(options) {
    const int64_t dim = options.dim;
    grid_h_ = options.patch.tokens(options.height());
    grid_w_ = options.patch.tokens(options.width());
    classes_.position = options.class_token;
    const int64_t extra = classes_.number();
    patch_embed_ =
        register_module("patch_embed", PatchSequence(options.channels, dim, options.patch));
    if (extra == 1) tokens_ = {register_parameter("cls_token", torch::zeros({1, 1, dim}))};
    if (extra == 2)
      tokens_ = {register_parameter("cls_token_head", torch::zeros({1, 1, dim})),
                 register_parameter("cls_token_tail", torch::zeros({1, 1, dim}))};
    if (options.pos_embed)
      pos_embed_ =
          register_parameter("pos_embed", torch::zeros({1, grid_h_ * grid_w_ + extra, dim}));
    if (options.rope) {
      SERPENTINE_CHECK(options.height() == options.width() && extra < 2, kVimWho,
                       "rope takes a square image_size and at most one class token");
      rope_ = register_module("rope", RotaryGrid(dim, options.height() / options.patch.patch_size));
    }
    stack_ = std::make_unique<VimStack>(*this, options.stack());
    head_ = register_module("head", torch::nn::Linear(dim, options.classes));
    const torch::NoGradGuard no_grad;
    for (auto& token : tokens_) token.normal_(0, kVimSpread);
    if (pos_embed_.defined()) pos_embed_.normal_(0, kVimSpread);
    head_->weight.normal_(0, kVimSpread);
    head_->bias.zero_();
  }

  torch::Tensor forward_features(const torch::Tensor& images) override {
    int64_t height = 0, width = 0;
    const auto x = run(images, height, width, {});
    const auto places = classes_.places(height * width);
    if (places.size() == 1) return x.select(1, places[0]);
    if (places.size() == 2) return (x.select(1, places[0]) + x.select(1, places[1])) / 2;
    if (options_.pool == "mean") return x.mean(1);
    return options_.pool == "none" ? x.select(1, x.size(1) - 1) : x;
  }

  torch::Tensor forward_head(const torch::Tensor& features) override {
    const auto logits = head_(features);
    return options_.pool == "max" && logits.dim() == 3 ? std::get<0>(logits.max(1)) : logits;
  }
  int64_t num_features() const override { return options_.dim; }

  /// As the reference's segmentation backbone: what the mixers of the layers at the quarters give.
  std::vector<torch::Tensor> forward_maps(const torch::Tensor& images) override {
    std::map<int64_t, torch::Tensor> outputs;
    for (const int64_t layer : map_layers()) outputs[layer];
    int64_t height = 0, width = 0;
    run(images, height, width, [&](int64_t layer, const Streams& streams, const Trace&) {
      const auto wanted = outputs.find(layer);
      if (wanted != outputs.end()) wanted->second = streams.hidden;
    });
    std::vector<torch::Tensor> maps;
    for (const auto& [layer, tokens] : outputs)
      maps.push_back(without_classes(tokens, classes_, height, width));
    return maps;
  }
  std::vector<int64_t> map_channels() const override {
    return std::vector<int64_t>(map_layers().size(), options_.dim);
  }

  StateDict adapt(StateDict weights) const override;

 private:
  std::vector<int64_t> map_layers() const {
    std::vector<int64_t> layers;
    for (int64_t quarter = 1; quarter <= 4; ++quarter) {
      const int64_t layer = quarter * options_.depth / 4 - 1;
      if (layer >= 0 && (layers.empty() || layers.back() != layer)) layers.push_back(layer);
    }
    return layers;
  }

  // [B, C, H, W] -> [B, T, C] behind the last norm, in sequence
  torch::Tensor run(const torch::Tensor& images, int64_t& height, int64_t& width,
                    const VimStack::OnLayer& on_layer) {
    check_shape(kVimWho, images, "the images", {-1, options_.channels, -1, -1}, "B, C, H, W");
    height = options_.patch.tokens(images.size(2));
    width = options_.patch.tokens(images.size(3));
    auto x = patch_embed_(images);
    leave_trace("after_patch_embed", x);
    x = with_class_tokens(x, tokens_, classes_);
    if (pos_embed_.defined())
      x = x + resized_positions(pos_embed_, grid_h_, grid_w_, height, width, extra_rows());
    x = torch::dropout(x, options_.dropout, is_training());
    const auto leave = [&](int64_t layer, const Streams& streams, const Trace& mixer) {
      if (on_layer) on_layer(layer, streams, mixer);
      const std::string name = "block" + std::to_string(layer) + ".";
      leave_trace(name + "hidden", streams.hidden);
      leave_trace(name + "residual", streams.residual);
      for (const auto& [part, tensor] : mixer) leave_trace(name + part, tensor);
    };
    return stack_->forward(
        x, height, width, is_training(), rope_, options_.rope_residual,
        trace != nullptr || on_layer ? VimStack::OnLayer(leave) : VimStack::OnLayer());
  }

  ExtraRows extra_rows() const {
    if (classes_.position == "first") return ExtraRows::kFirst;
    if (classes_.position == "middle") return ExtraRows::kMiddle;
    return classes_.position == "both" ? ExtraRows::kEnds : ExtraRows::kNone;
  }

  VimOptions options_;
  ClassTokens classes_;
  int64_t grid_h_ = 0, grid_w_ = 0;  // that the positions are sized for
  PatchSequence patch_embed_{nullptr};
  std::vector<torch::Tensor> tokens_;  // [1, 1, dim] each
  torch::Tensor pos_embed_;            // [1, T, dim]
  RotaryGrid rope_{nullptr};
  std::unique_ptr<VimStack> stack_;
  torch::nn::Linear head_{nullptr};
};

// positions of another image size
StateDict Vim::adapt(StateDict weights) const {
  if (!pos_embed_.defined()) return weights;
  for (auto& [name, tensor] : weights) {
    if (name != "pos_embed" || tensor.dim() != 3 || tensor.sizes() == pos_embed_.sizes()) continue;
    const int64_t extra = classes_.number(), patches = tensor.size(1) - extra;
    const auto side = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(patches))));
    if (side * side != patches) continue;  // of which grid it was cannot be told
    const auto table = tensor.to(torch::kFloat);
    if (options_.resize == "published" && extra > 0) {
      tensor = resized_positions_published(table, pos_embed_.size(1), extra);
    } else {
      tensor = resized_positions(table, side, side, grid_h_, grid_w_, extra_rows());
    }
  }
  return weights;
}

}  // namespace

void add_vim(Registry<Model>& all) {
  all.add<VimOptions>("vim",
                      [](const VimOptions& options) { return std::make_shared<Vim>(options); });
}

}  // namespace serpentine
