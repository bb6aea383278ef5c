#include "vision/recognise.h"

#include <cmath>
#include <map>
#include <set>

#include <torch/types.h>
#include <nlohmann/json.hpp>

namespace serpentine {
namespace {

using Json = nlohmann::json;

/// Names and shapes of a checkpoint.
class Shapes {
 public:
  explicit Shapes(const StateDict& weights) {
    for (const auto& [name, tensor] : weights) shapes_[name] = tensor.sizes().vec();
  }
  bool has(const std::string& name) const { return shapes_.count(name) > 0; }
  /// Extent of an axis; -1 without such a tensor or axis.
  int64_t size(const std::string& name, size_t axis) const {
    const auto found = shapes_.find(name);
    return found == shapes_.end() || axis >= found->second.size() ? -1 : found->second[axis];
  }
  bool any(const std::string& part) const {
    for (const auto& [name, shape] : shapes_)
      if (name.find(part) != std::string::npos) return true;
    return false;
  }
  /// How many of prefix0suffix, prefix1suffix, ... there are.
  int64_t count(const std::string& prefix) const {
    int64_t number = 0;
    for (;; ++number) {
      const auto next = shapes_.lower_bound(prefix + std::to_string(number) + ".");
      if (next == shapes_.end() || !next->first.starts_with(prefix + std::to_string(number) + "."))
        return number;
    }
  }

 private:
  std::map<std::string, std::vector<int64_t>> shapes_;
};

/// The prefixes that training programs put before every name.
StateDict without_prefixes(StateDict weights) {
  for (const std::string prefix : {"module.", "module.", "model.", "backbone."}) {
    bool all = !weights.empty();
    for (const auto& [name, tensor] : weights)
      all = all && (name.starts_with(prefix) || name.find("head") != std::string::npos);
    if (!all) continue;
    for (auto& [name, tensor] : weights)
      if (name.starts_with(prefix)) name = name.substr(prefix.size());
  }
  return weights;
}

int64_t root(int64_t count) {
  const auto side = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(count))));
  return side * side == count ? side : 0;
}

double ratio(int64_t of, int64_t to) { return static_cast<double>(of) / static_cast<double>(to); }

/// Stride and image size that make `patches`: 224 pixels if some stride fits.
void patch_grid(Recognised& found, Json& options, int64_t patches, int64_t patch) {
  const int64_t side = root(patches);
  if (side == 0) {
    found.notes.push_back("the " + std::to_string(patches) +
                          " positions are no square: give image_size and stride");
    return;
  }
  for (const int64_t stride : {patch, int64_t{16}, int64_t{8}, int64_t{4}}) {
    if (stride > patch || (224 - patch) / stride + 1 != side) continue;
    options["stride"] = stride;
    options["image_size"] = {224};
    return;
  }
  options["stride"] = patch;
  options["image_size"] = {side * patch};
}

/// The mixers' options that differ from the defaults.
void mixer_options(const Shapes& shapes, Json& options, int64_t dim) {
  const std::string mixer = "layers.0.mixer.";
  const int64_t inner = shapes.size(mixer + "A_log", 0),
                rank = shapes.size(mixer + "dt_proj.weight", 1);
  Json mamba = {{"d_state", shapes.size(mixer + "A_log", 1)},
                {"d_conv", shapes.size(mixer + "conv1d.weight", 2)},
                {"expand", ratio(inner, dim)}};
  if (rank != (dim + 15) / 16) mamba["dt_rank"] = rank;
  options["mamba"] = mamba;
}

void vim(Recognised& found, const Shapes& shapes) {
  const int64_t dim = shapes.size("patch_embed.proj.weight", 0),
                patch = shapes.size("patch_embed.proj.weight", 2), depth = shapes.count("layers.");
  const int64_t tokens = shapes.has("cls_token")        ? shapes.size("cls_token", 1)
                         : shapes.has("cls_token_head") ? 2
                                                        : 0;
  Json options = {{"dim", dim},
                  {"depth", depth},
                  {"patch_size", patch},
                  {"stride", patch},
                  {"channels", shapes.size("patch_embed.proj.weight", 1)},
                  {"classes", shapes.size("head.weight", 0)},
                  {"rms_norm", !shapes.has("norm_f.bias")}};
  mixer_options(shapes, options, dim);
  const bool registers = shapes.has("pos_embed_cls");
  const int64_t rows = shapes.size("pos_embed", 1);
  if (rows > 0) patch_grid(found, options, registers ? rows : rows - tokens, patch);
  if (registers) {
    found.family = "shuffle_mamba";
    options["registers"] = tokens;
    options["register_reduce"] =
        shapes.has("neck.weight") ? dim / shapes.size("neck.weight", 0) : 1;
    found.size = dim == 384    ? "shuffle_mamba reg_small"
                 : dim == 768  ? "shuffle_mamba reg_base"
                 : dim == 1024 ? "shuffle_mamba reg_large"
                               : "";
  } else if (dim == 576 && depth == 32) {
    found.family = "shuffle_mamba";
    found.size = "shuffle_mamba middle";
  } else {
    found.family = "vim";
    options["pos_embed"] = rows > 0;
    options["class_token"] = tokens == 0 ? "none" : tokens == 2 ? "both" : "middle";
    if (tokens == 1)
      found.notes.push_back(
          "names do not tell where the class token stands: middle is assumed "
          "(class_token=first otherwise; ShuffleMamba's have it first)");
    if (tokens == 0) {
      options["pool"] = "mean";
      found.notes.push_back("names do not tell how tokens are pooled: mean is assumed");
    }
    const std::string mixer = "layers.0.mixer.";
    options["bimamba"] = shapes.has(mixer + "conv1d_b.weight") ? "v2"
                         : shapes.has(mixer + "A_b_log")       ? "v1"
                                                               : "none";
    if (shapes.has(mixer + "gamma")) options["layer_scale"] = 1.0;
    options["rope"] = shapes.has("rope.freqs_cos");
    if (depth == 24 && tokens == 1 && rows > 0) {
      found.size = dim == 192   ? "vim tiny"
                   : dim == 384 ? "vim small"
                   : dim == 768 ? "vim base"
                                : "";
      if (!found.size.empty() && options["stride"] != 16)
        found.size += " (stride " + std::to_string(options["stride"].get<int64_t>()) + ")";
    }
  }
  options["type"] = found.family;
  found.options = options.dump();
}

/// What the VMamba-like families share: stages of blocks.
struct Stages {
  std::vector<int64_t> depths, dims;
};

void vmamba(Recognised& found, const Shapes& shapes) {
  Stages stages;
  for (int64_t s = 0; s < shapes.count("layers."); ++s) {
    const std::string stage = "layers." + std::to_string(s) + ".blocks.";
    stages.depths.push_back(shapes.count(stage));
    const bool first = shapes.has(stage + "0.ln_1.weight");
    stages.dims.push_back(shapes.size(stage + (first ? "0.ln_1.weight" : "0.norm.weight"), 0));
  }
  const std::string block = "layers.0.blocks.0.";
  const std::string op = block + (shapes.any(".self_attention.") ? "self_attention." : "op.");
  const int64_t dim = stages.dims.at(0), inner = shapes.size(op + "out_proj.weight", 1);
  const bool gate = shapes.size(op + "in_proj.weight", 0) == 2 * inner;
  const bool mlp = shapes.has(block + "mlp.fc1.weight");
  const int64_t grouped = shapes.size(op + "dt_projs_weight", 2);
  const int64_t rank = grouped > 0 ? grouped : shapes.size(op + "dt_projs.weight", 1);
  const std::string stem =
      shapes.has("patch_embed.0.weight") ? "patch_embed.0.weight" : "patch_embed.proj.weight";
  const bool overlapping = shapes.has("patch_embed.5.weight");
  const int64_t kernel = shapes.size(stem, 2), patch = overlapping ? 2 * (kernel - 1) : kernel;
  Json options = {{"type", "vmamba"},
                  {"depths", stages.depths},
                  {"dims", stages.dims},
                  {"channels", shapes.size(stem, 1)},
                  {"patch_size", patch},
                  {"patchembed", overlapping ? "v2" : "v1"},
                  {"patch_norm", shapes.any("patch_embed.2.") || shapes.any("patch_embed.norm.")},
                  {"d_state", shapes.size(op + "A_logs", 1)},
                  {"ssm_ratio", ratio(inner, dim)},
                  {"forward_type", gate ? (mlp ? "v05" : "v0") : "v05_noz"},
                  {"d_conv", std::max<int64_t>(1, shapes.size(op + "conv2d.weight", 2))},
                  {"conv_bias", shapes.has(op + "conv2d.bias")},
                  {"mlp_ratio", 0.0},
                  {"norm_layer", shapes.has(block + "norm.running_mean") ? "bn" : "ln2d"},
                  {"posembed", shapes.has("pos_embed")}};
  if (rank != (dim + 15) / 16) options["dt_rank"] = rank;
  if (mlp) {
    const int64_t hidden = shapes.size(block + "mlp.fc2.weight", 1);
    options["mlp_ratio"] = ratio(hidden, dim);
    options["gmlp"] = shapes.size(block + "mlp.fc1.weight", 0) == 2 * hidden;
  }
  const int64_t down = shapes.size("layers.0.downsample.1.weight", 2);
  options["downsample"] = down == 3 ? "v3" : down == 2 ? "v2" : "v1";
  if (shapes.has("pos_embed"))
    options["image_size"] = {shapes.size("pos_embed", 2) * patch,
                             shapes.size("pos_embed", 3) * patch};
  for (const std::string head : {"classifier.head.weight", "head.weight"})
    if (shapes.has(head)) options["classes"] = shapes.size(head, 0);
  if (!options.contains("classes")) {
    std::vector<int64_t> outputs;
    for (size_t s = 0; s < stages.dims.size(); ++s)
      if (shapes.has("outnorm" + std::to_string(s) + ".weight"))
        outputs.push_back(static_cast<int64_t>(s));
    options["out_indices"] = outputs;
  }
  if (gate)
    found.notes.push_back(
        "names do not tell v0 from a gated v05 without MLP; both compute the same");
  const auto& d = stages.depths;
  const std::string name = dim == 128 ? "base" : d.size() == 4 && d[2] < 10 ? "tiny" : "small";
  if ((dim == 96 || dim == 128) && d.size() == 4)
    found.size = "vmamba " + name + (mlp ? "" : "_v0") + " (depths " + std::to_string(d[2]) +
                 " in the third stage)";
  found.family = "vmamba";
  found.options = options.dump();
}

void efficient(Recognised& found, const Shapes& shapes) {
  Stages stages;
  for (int64_t s = 0; s < shapes.count("layers."); ++s) {
    const std::string stage = "layers." + std::to_string(s) + ".";
    if (shapes.has(stage + "blocks.0.norm.weight")) {
      stages.depths.push_back(shapes.count(stage + "blocks."));
      stages.dims.push_back(shapes.size(stage + "blocks.0.norm.weight", 0));
      continue;
    }
    int64_t depth = 0;
    while (shapes.has(stage + std::to_string(depth + 1) + ".conv_pw.0.weight")) ++depth;
    stages.depths.push_back(depth);
    stages.dims.push_back(shapes.size(stage + "1.conv_pw.0.weight", 1));
  }
  const std::string op = "layers.0.blocks.0.op.";
  const int64_t dim = stages.dims.at(0);
  Json options = {{"type", "efficient_vmamba"},
                  {"depths", stages.depths},
                  {"dims", stages.dims},
                  {"channels", shapes.size("patch_embed.0.weight", 1)},
                  {"patch_size", shapes.size("patch_embed.0.weight", 2)},
                  {"patch_norm", shapes.has("patch_embed.2.weight")},
                  {"ssm_ratio", ratio(shapes.size(op + "out_proj.weight", 1), dim)},
                  {"classes", shapes.size("classifier.head.weight", 0)}};
  if (shapes.has(op + "in_rank.weight"))
    options["rank_ratio"] = ratio(shapes.size(op + "in_rank.weight", 0), dim);
  found.size = dim == 48   ? "efficient_vmamba tiny"
               : dim == 64 ? "efficient_vmamba small"
               : dim == 96 ? "efficient_vmamba base"
                           : "";
  found.family = "efficient_vmamba";
  found.options = options.dump();
}

void medmamba(Recognised& found, const Shapes& shapes) {
  Stages stages;
  for (int64_t s = 0; s < shapes.count("layers."); ++s) {
    const std::string stage = "layers." + std::to_string(s) + ".blocks.";
    stages.depths.push_back(shapes.count(stage));
    stages.dims.push_back(2 * shapes.size(stage + "0.ln_1.weight", 0));
  }
  const std::string op = "layers.0.blocks.0.self_attention.";
  const Json options = {
      {"type", "medmamba"},
      {"depths", stages.depths},
      {"dims", stages.dims},
      {"channels", shapes.size("patch_embed.proj.weight", 1)},
      {"patch_size", shapes.size("patch_embed.proj.weight", 2)},
      {"patch_norm", shapes.has("patch_embed.norm.weight")},
      {"d_state", shapes.size(op + "A_logs", 1)},
      {"ssm_ratio", ratio(shapes.size(op + "out_proj.weight", 1), stages.dims.at(0) / 2)},
      {"classes", shapes.size("head.weight", 0)}};
  const int64_t third = stages.depths.size() == 4 ? stages.depths[2] : 0;
  found.size = third == 4    ? "medmamba tiny"
               : third == 8  ? "medmamba small"
               : third == 12 ? "medmamba base"
                             : "";
  found.family = "medmamba";
  found.options = options.dump();
}

void plain(Recognised& found, const Shapes& shapes) {
  const int64_t dim = shapes.size("patch_embed.projection.weight", 0),
                patch = shapes.size("patch_embed.projection.weight", 2);
  int64_t convs = 0;
  while (shapes.has("layers." + std::to_string(convs) + ".dw.0.weight")) ++convs;
  Json options = {{"type", "plain_mamba"},
                  {"dim", dim},
                  {"depth", shapes.count("layers.")},
                  {"patch_size", patch},
                  {"stride", patch},
                  {"channels", shapes.size("patch_embed.projection.weight", 1)},
                  {"conv_layers", convs},
                  {"d_state", shapes.size("layers.0.mamba.A_log", 1)},
                  {"expand", ratio(shapes.size("layers.0.mamba.A_log", 0), dim)},
                  {"conv_size", shapes.size("layers.0.mamba.conv2d.weight", 2)},
                  {"rms_norm", !shapes.has("layers.0.norm.bias")},
                  {"classes", std::max<int64_t>(1, shapes.size("head.weight", 0))}};
  patch_grid(found, options, shapes.size("pos_embed", 1), patch);
  found.size = dim == 192   ? "plain_mamba l1"
               : dim == 384 ? "plain_mamba l2"
               : dim == 448 ? "plain_mamba l3"
                            : "";
  found.family = "plain_mamba";
  found.options = options.dump();
}

void resnet(Recognised& found, const Shapes& shapes) {
  const bool bottleneck = shapes.has("layer1.0.conv3.weight");
  const std::string size = bottleneck ? "50" : shapes.count("layer3.") == 6 ? "34" : "18";
  const Json options = {{"type", "resnet"},
                        {"size", size},
                        {"channels", shapes.size("conv1.weight", 1)},
                        {"stem", shapes.size("conv1.weight", 2) == 3 ? "small" : "imagenet"},
                        {"head", shapes.has("fc.weight")},
                        {"classes", std::max<int64_t>(1, shapes.size("fc.weight", 0))}};
  found.size = "resnet " + size;
  found.family = "resnet";
  found.options = options.dump();
}

}  // namespace

Recognised recognise(StateDict weights) {
  Recognised found;
  found.weights = without_prefixes(std::move(weights));
  const Shapes shapes(found.weights);
  if (shapes.any(".mamba.direction_Bs")) {
    plain(found, shapes);
  } else if (shapes.any(".conv33conv33conv11.")) {
    medmamba(found, shapes);
  } else if (shapes.any(".conv_branch.") && shapes.any(".op.A_logs")) {
    efficient(found, shapes);
  } else if (shapes.any(".A_logs") &&
             shapes.has("layers.0.blocks.0." +
                        std::string(shapes.any(".self_attention.") ? "self_attention" : "op") +
                        ".A_logs")) {
    vmamba(found, shapes);
  } else if (shapes.has("layers.0.mixer.A_log") && shapes.has("patch_embed.proj.weight")) {
    vim(found, shapes);
  } else if (shapes.has("conv1.weight") && shapes.has("layer4.0.bn1.weight")) {
    resnet(found, shapes);
  } else {
    TORCH_CHECK(
        false,
        "the names belong to no image model known here (vim, vmamba, efficient_vmamba, "
        "shuffle_mamba, plain_mamba, medmamba, resnet); `serpentine weights FILE` lists them");
  }
  return found;
}

}  // namespace serpentine
