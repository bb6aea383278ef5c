// VMamba: stages of SS2D blocks over maps that halve between them.
//
// Liu et al., "VMamba", arXiv 2401.10166, Figure 3. Keys, variants and init as MzeroMiko/VMamba's
// VSSM and Backbone_VSSM.
// differs: merging pads odd maps behind in every layout; the reference does so channels-last only
// and fails channels-first.
#include <algorithm>

#include <torch/torch.h>

#include "core/check.h"
#include "vision/image_model.h"
#include "vision/recompute_block.h"
#include "vision/vision.h"
#include "vision/vss_block.h"

namespace serpentine {
namespace {

constexpr const char* kVmambaWho = "vmamba";

struct VmambaOptions : ImageModelOptions {
  std::string size;
  std::vector<int64_t> depths = {2, 2, 8, 2}, dims = {96};
  int64_t patch_size = 4, d_state = 1, dt_rank = 0, d_conv = 3;
  double ssm_ratio = 1, ssm_dropout = 0, mlp_ratio = 4, mlp_dropout = 0, drop_path = 0.2;
  std::string ssm_act = "silu", ssm_init = "v0", forward_type = "v05_noz", mlp_act = "gelu";
  bool conv_bias = false, gmlp = false, patch_norm = true, posembed = false;
  std::string norm_layer = "ln2d", downsample = "v3", patchembed = "v2";
  std::vector<int64_t> out_indices;
  Config scan;

  void preset() {
    const bool vanilla = size.ends_with("_v0");
    if (vanilla) {
      d_state = 16;
      ssm_ratio = 2;
      mlp_ratio = 0;
      forward_type = "v0";
      conv_bias = true;
      norm_layer = "ln";
      downsample = patchembed = "v1";
    }
    const bool base = size.starts_with("base"), tiny = size.starts_with("tiny");
    dims = {base ? 128 : 96};
    drop_path = tiny ? 0.2 : base ? 0.6 : 0.3;
    if (vanilla) {
      depths = {2, 2, tiny ? 9 : 27, 2};
    } else if (size.ends_with("_s2l5")) {
      depths = {2, 2, 5, 2};
      ssm_ratio = 2;
    } else if (size.ends_with("_s1l20")) {
      depths = {2, 2, 20, 2};
      drop_path = base ? 0.5 : 0.3;
    } else if (!tiny) {
      depths = {2, 2, 15, 2};
      ssm_ratio = 2;
    }
  }

  void fields(Fields& f) {
    f("size", size,
      "a published configuration, which the keys below may change; tiny is tiny_s1l8, small and "
      "base are s2l15",
      {.choices = {"", "tiny", "tiny_s2l5", "small", "small_s1l20", "base", "base_s1l20", "tiny_v0",
                   "small_v0", "base_v0"}});
    if (!size.empty()) preset();
    ImageModelOptions::fields(f);
    f("depths", depths, "blocks of each stage", {.least = 0});
    f("dims", dims, "channels of each stage, or of the first; they double", {.least = 1});
    f("patch_size", patch_size, "pixels of a side of a token", {.least = 2});
    f("d_state", d_state, "states a channel", {.least = 1});
    f("ssm_ratio", ssm_ratio, "inner channels of the scan over the block's", {.least = 0.01});
    f("dt_rank", dt_rank, "rank of the projection to delta; 0: a sixteenth of the channels",
      {.least = 0});
    f("ssm_act", ssm_act, "activation around the scan",
      {.choices = {"silu", "gelu", "relu", "sigmoid"}});
    f("d_conv", d_conv, "side of the depthwise convolution; 1: none", {.least = 1});
    f("conv_bias", conv_bias, "its bias");
    f("ssm_dropout", ssm_dropout, "after the scan's block", {.least = 0, .most = 0.99});
    f("ssm_init", ssm_init, "initial scan parameters", {.choices = {"v0", "v1", "v2"}});
    f("forward_type", forward_type,
      "v0, or a base (v01 to v05, v051d, v052d, v052dc) with _on<norm>, _noz or _nozact, _oact");
    f("mlp_ratio", mlp_ratio, "inner channels of the MLP over the block's; 0: none", {.least = 0});
    f("mlp_act", mlp_act, "activation of the MLP",
      {.choices = {"silu", "gelu", "relu", "sigmoid"}});
    f("mlp_dropout", mlp_dropout, "in the MLP", {.least = 0, .most = 0.99});
    f("gmlp", gmlp, "gated MLP");
    f("drop_path", drop_path, "of the last block; it grows linearly from 0",
      {.least = 0, .most = 0.99});
    f("patch_norm", patch_norm, "norms after the stem's convolutions");
    f("norm_layer", norm_layer, "ln, ln2d (the same, as keys), bn",
      {.choices = {"ln", "ln2d", "bn"}});
    f("downsample", downsample, "v1: merging; v2: 2 x 2 convolution; v3: 3 x 3; none",
      {.choices = {"v1", "v2", "v3", "none"}});
    f("patchembed", patchembed, "v1: one convolution; v2: two, overlapping",
      {.choices = {"v1", "v2"}});
    f("posembed", posembed, "a learned position embedding, sized for image_size");
    f("out_indices", out_indices,
      "no classifier: norms after these stages, whose maps dense tasks read", {.least = 0});
    f.nested("scan", scan, "the routes; default those of forward_type", "serialization");
  }

  std::vector<int64_t> stage_dims() const {
    SERPENTINE_CHECK(!depths.empty(), kVmambaWho, "depths must name at least one stage");
    if (dims.size() == depths.size()) return dims;
    SERPENTINE_CHECK(dims.size() == 1, kVmambaWho,
                     "dims must have one number, or one for each of the ", depths.size(),
                     " stages, got ", dims.size());
    std::vector<int64_t> all = {dims[0]};
    while (all.size() < depths.size()) all.push_back(2 * all.back());
    return all;
  }

  VssBlockOptions block(int64_t width) const {
    VssBlockOptions block;
    block.ssm = {width, d_state,     ssm_ratio, dt_rank,      d_conv,   conv_bias,
                 false, ssm_dropout, ssm_act,   forward_type, ssm_init, scan};
    block.mlp_ratio = mlp_ratio;
    block.mlp_dropout = mlp_dropout;
    block.gmlp = gmlp;
    block.mlp_act = mlp_act;
    block.norm_layer = norm_layer;
    return block;
  }
};

torch::nn::Conv2d conv(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t padding) {
  return torch::nn::Conv2d(
      torch::nn::Conv2dOptions(in, out, kernel).stride(stride).padding(padding));
}

class Vmamba : public ImageModel {
 public:
  explicit Vmamba(const VmambaOptions& options) : options_(options), dims_(options.stage_dims()) {
    add_stem();
    if (options.posembed) {
      pos_embed_ = register_parameter(
          "pos_embed", torch::zeros({1, dims_[0], options.height() / options.patch_size,
                                     options.width() / options.patch_size}));
      torch::nn::init::normal_(pos_embed_, 0, 0.02);
    }
    torch::nn::ModuleList layers;
    int64_t blocks = 0;
    for (const int64_t depth : options.depths) blocks += depth;
    const auto rates = drop_path_rates(options.drop_path, blocks);
    for (size_t s = 0; s < dims_.size(); ++s) layers->push_back(add_stage(s, rates));
    register_module("layers", layers);
    if (!options.out_indices.empty()) {
      for (const int64_t i : options.out_indices) {
        SERPENTINE_CHECK(i < static_cast<int64_t>(dims_.size()), kVmambaWho,
                         "out_indices must be below the ", dims_.size(), " stages, got ", i);
        out_norms_.emplace_back(options.norm_layer, dims_[static_cast<size_t>(i)]);
        register_module("outnorm" + std::to_string(i), out_norms_.back().module());
      }
    } else {
      const auto classifier =
          register_module("classifier", std::make_shared<torch::nn::Module>("classifier"));
      norm_ = MapNorm(options.norm_layer, dims_.back());
      classifier->register_module("norm", norm_.module());
      head_ = classifier->register_module("head", torch::nn::Linear(dims_.back(), options.classes));
    }
    init_swin_style(*this);
  }

  torch::Tensor forward_features(const torch::Tensor& images) override {
    auto x = stem(images);
    for (size_t s = 0; s < stages_.size(); ++s) x = downsample(s, run_stage(s, x));
    if (norm_.module()) x = norm_.forward(x);
    const auto pooled = x.mean({1, 2});
    leave_trace("after_avgpool", pooled);
    return pooled;
  }
  torch::Tensor forward_head(const torch::Tensor& features) override {
    SERPENTINE_CHECK(head_, kVmambaWho, "with out_indices it has no classifier");
    return head_(features);
  }
  int64_t num_features() const override { return dims_.back(); }

  std::vector<torch::Tensor> forward_maps(const torch::Tensor& images) override {
    std::vector<torch::Tensor> maps;
    auto x = stem(images);
    for (size_t s = 0; s < stages_.size(); ++s) {
      x = run_stage(s, x);
      const auto& chosen = options_.out_indices;
      const auto at = std::find(chosen.begin(), chosen.end(), static_cast<int64_t>(s));
      if (at != chosen.end()) {
        maps.push_back(
            channels_first(out_norms_[static_cast<size_t>(at - chosen.begin())].forward(x)));
      } else if (chosen.empty()) {
        maps.push_back(channels_first(x));
      }
      x = downsample(s, x);
    }
    return maps;
  }
  std::vector<int64_t> map_channels() const override {
    if (options_.out_indices.empty()) return dims_;
    std::vector<int64_t> channels;
    for (size_t s = 0; s < dims_.size(); ++s)
      if (std::count(options_.out_indices.begin(), options_.out_indices.end(), s))
        channels.push_back(dims_[s]);
    return channels;
  }

  StateDict adapt(StateDict weights) const override;

 private:
  struct Stage {
    std::vector<VssBlock> blocks;
    PatchMerging merging{nullptr};
    torch::nn::Conv2d conv{nullptr};
    MapNorm norm;
    int64_t first = 0;  // number of its first block in the model
  };

  // the numbers are those of the reference's Sequential
  void add_stem() {
    const auto stem =
        register_module("patch_embed", std::make_shared<torch::nn::Module>("patch_embed"));
    const int64_t dim = dims_[0], patch = options_.patch_size;
    const auto add = [&](size_t number, int64_t in, int64_t out, int64_t kernel, int64_t stride,
                         int64_t padding) {
      stem_convs_.push_back(
          stem->register_module(std::to_string(number), conv(in, out, kernel, stride, padding)));
      stem_norms_.emplace_back();
      if (!options_.patch_norm) return;
      stem_norms_.back() = MapNorm(options_.norm_layer, out);
      stem->register_module(std::to_string(number + 2), stem_norms_.back().module());
    };
    if (options_.patchembed == "v1") {
      add(0, options_.channels, dim, patch, patch, 0);
    } else {
      add(0, options_.channels, dim / 2, patch / 2 + 1, patch / 2, 1);
      add(5, dim / 2, dim, patch / 2 + 1, patch / 2, 1);
    }
  }

  std::shared_ptr<torch::nn::Module> add_stage(size_t number, const std::vector<double>& rates) {
    const auto made = std::make_shared<torch::nn::Module>("stage");
    Stage stage;
    for (size_t s = 0; s < number; ++s) stage.first += options_.depths[s];
    torch::nn::ModuleList blocks;
    for (int64_t i = 0; i < options_.depths[number]; ++i) {
      VssBlockOptions block = options_.block(dims_[number]);
      block.drop_path = rates[static_cast<size_t>(stage.first + i)];
      stage.blocks.emplace_back(block);
      blocks->push_back(stage.blocks.back());
    }
    made->register_module("blocks", blocks);
    if (number + 1 < dims_.size() && options_.downsample != "none") {
      const int64_t in = dims_[number], out = dims_[number + 1];
      if (options_.downsample == "v1") {
        stage.merging =
            made->register_module("downsample", PatchMerging(in, out, options_.norm_layer));
      } else {
        const auto parts =
            made->register_module("downsample", std::make_shared<torch::nn::Module>("downsample"));
        const bool wide = options_.downsample == "v3";
        stage.conv = parts->register_module("1", conv(in, out, wide ? 3 : 2, 2, wide ? 1 : 0));
        stage.norm = MapNorm(options_.norm_layer, out);
        parts->register_module("3", stage.norm.module());
      }
    }
    stages_.push_back(stage);
    return made;
  }

  torch::Tensor stem(const torch::Tensor& images) {
    check_shape(kVmambaWho, images, "the images", {-1, options_.channels, -1, -1}, "B, C, H, W");
    auto x = channels_last(images);
    for (size_t i = 0; i < stem_convs_.size(); ++i) {
      x = convolve(stem_convs_[i], x);
      if (stem_norms_[i].module()) x = stem_norms_[i].forward(x);
      if (i + 1 < stem_convs_.size()) x = torch::gelu(x);
    }
    leave_trace("after_patch_embed", x);
    if (pos_embed_.defined())
      x = x + channels_last(resized_embedding(pos_embed_, x.size(1), x.size(2)));
    return x;
  }

  torch::Tensor run_stage(size_t number, torch::Tensor x) {
    Stage& stage = stages_[number];
    const std::string prefix = "stage" + std::to_string(number) + ".";
    for (size_t i = 0; i < stage.blocks.size(); ++i) {
      ScanContext context;
      context.layer = stage.first + static_cast<int64_t>(i);
      context.num_layers = stages_.back().first + options_.depths.back();
      context.training = is_training();
      const std::string name = prefix + "block" + std::to_string(i);
      Trace inner;
      stage.blocks[i]->trace = trace != nullptr ? &inner : nullptr;
      const auto block = stage.blocks[i].ptr();
      x = recompute_block(
          options_.recompute && is_training() && trace == nullptr,
          [block, context](const torch::Tensor& map) { return block->forward(map, context); }, x);
      stage.blocks[i]->trace = nullptr;
      for (const auto& [part, tensor] : inner)
        leave_trace(std::string(name).append(".").append(part), tensor);
      leave_trace(name, x);
    }
    leave_trace(prefix + "blocks", x);
    return x;
  }

  torch::Tensor downsample(size_t number, torch::Tensor x) {
    Stage& stage = stages_[number];
    if (stage.merging) x = stage.merging(x);
    if (stage.conv) x = stage.norm.forward(convolve(stage.conv, x));
    if (stage.merging || stage.conv)
      leave_trace("stage" + std::to_string(number) + ".downsample", x);
    return x;
  }

  VmambaOptions options_;
  std::vector<int64_t> dims_;
  std::vector<torch::nn::Conv2d> stem_convs_;
  std::vector<MapNorm> stem_norms_, out_norms_;
  std::vector<Stage> stages_;
  MapNorm norm_;
  torch::nn::Linear head_{nullptr};
  torch::Tensor pos_embed_;
};

/// `from` at its place in `name`, replaced.
std::string replaced(std::string name, const std::string& from, const std::string& to) {
  const size_t at = name.find(from);
  if (at != std::string::npos) name.replace(at, from.size(), to);
  return name;
}

// the first release's names; the single-file release's grouped projections; a Linear kept as a
// 1 x 1 convolution; the position embedding of another image size
StateDict Vmamba::adapt(StateDict weights) const {
  std::map<std::string, torch::Tensor> own;
  for (const auto& [name, tensor] : state_dict(*this)) own[name] = tensor;
  for (auto& [name, tensor] : weights) {
    for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
             {"patch_embed.proj.", "patch_embed.0."},
             {"patch_embed.norm.", "patch_embed.2."},
             {".ln_1.", ".norm."},
             {".self_attention.", ".op."},
             {".x_proj.weight", ".x_proj_weight"},
             {".dt_projs.weight", ".dt_projs_weight"}}) {
      name = replaced(name, from, to);
    }
    if (name.starts_with("norm.") || name.starts_with("head.")) name = "classifier." + name;
    const auto mine = own.find(name);
    if (mine == own.end() || mine->second.sizes() == tensor.sizes()) continue;
    if (name == "pos_embed" && tensor.dim() == 4) {
      tensor =
          resized_embedding(tensor.to(torch::kFloat), mine->second.size(2), mine->second.size(3));
    } else if (mine->second.numel() == tensor.numel()) {
      tensor = tensor.reshape(mine->second.sizes());
    }
  }
  return weights;
}

}  // namespace

void add_vmamba(Registry<Model>& all) {
  all.add<VmambaOptions>(
      "vmamba", [](const VmambaOptions& options) { return std::make_shared<Vmamba>(options); });
}

}  // namespace serpentine
