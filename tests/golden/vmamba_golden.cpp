// Checkers of VMamba: classifier, backbone, and SS2D alone.
#include <algorithm>

#include <gtest/gtest.h>

#include "golden/vision_golden.h"
#include "vision/ss2d.h"

namespace serpentine::golden {
namespace {

using Json = nlohmann::json;
using torch::Tensor;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return text;
}

Json vmamba_options(const Fixture& fixture) {
  const Json& args = fixture.config.at("args");
  // the reference's defaults, where ours are the published configs'
  Json options = {{"type", "vmamba"},   {"d_state", 16},        {"ssm_ratio", 2.0},
                  {"conv_bias", true},  {"forward_type", "v2"}, {"norm_layer", "ln"},
                  {"downsample", "v2"}, {"patchembed", "v1"},   {"depths", {2, 2, 9, 2}}};
  copy_options(options, args,
               {{"patch_size", "patch_size"},
                {"channels", "in_chans"},
                {"classes", "num_classes"},
                {"depths", "depths"},
                {"dims", "dims"},
                {"d_state", "ssm_d_state"},
                {"ssm_ratio", "ssm_ratio"},
                {"ssm_act", "ssm_act_layer"},
                {"d_conv", "ssm_conv"},
                {"conv_bias", "ssm_conv_bias"},
                {"ssm_init", "ssm_init"},
                {"forward_type", "forward_type"},
                {"mlp_ratio", "mlp_ratio"},
                {"mlp_act", "mlp_act_layer"},
                {"gmlp", "gmlp"},
                {"drop_path", "drop_path_rate"},
                {"patch_norm", "patch_norm"},
                {"norm_layer", "norm_layer"},
                {"downsample", "downsample_version"},
                {"patchembed", "patchembed_version"},
                {"posembed", "posembed"},
                {"out_indices", "out_indices"}});
  if (args.contains("ssm_dt_rank") && args.at("ssm_dt_rank").is_number())
    options["dt_rank"] = args.at("ssm_dt_rank");
  if (options.contains("dims") && options["dims"].is_number())
    options["dims"] = Json::array({options["dims"]});
  if (args.contains("imgsize"))
    options["image_size"] =
        args.at("imgsize").is_array() ? args.at("imgsize") : Json::array({args.at("imgsize")});
  for (const char* name : {"norm_layer", "ssm_act", "mlp_act"})
    if (options.contains(name)) options[name] = lower(options[name]);
  return options;
}

void check_vmamba(Fixture& fixture) {
  const Json options = vmamba_options(fixture);
  const auto model = build_image_model(fixture, options);
  Batch batch;
  batch.input = fixture.input("input").requires_grad_();
  std::map<std::string, Tensor> trace;
  model->trace = &trace;
  const Tensor output = model->forward(batch);
  model->trace = nullptr;
  // the reference's layout: ln2d and bn are channels-first; v0 norms a list of tokens
  for (auto& [name, tensor] : trace) {
    if (tensor.dim() != 4) continue;
    if (options["norm_layer"] != "ln") {
      tensor = tensor.permute({0, 3, 1, 2});
    } else if (options["forward_type"] == "v0" && name.ends_with("out_norm")) {
      tensor = tensor.flatten(1, 2);
    }
  }
  check_trace(fixture, trace);
  fixture.check("output", output);
  (output * fixture.input("cotangent")).sum().backward();
  check_gradients(fixture, *model, batch.input);
}

void check_backbone(Fixture& fixture) {
  Json options = vmamba_options(fixture);
  if (!options.contains("out_indices")) options["out_indices"] = {0, 1, 2, 3};
  const auto model = build_image_model(fixture, options);
  const Tensor input = fixture.input("input").requires_grad_();
  const auto maps = model->forward_maps(input);
  std::vector<Tensor> flat;
  for (size_t i = 0; i < maps.size(); ++i) {
    fixture.check("feature" + std::to_string(options["out_indices"][i].get<int64_t>()), maps[i]);
    flat.push_back(maps[i].flatten());
  }
  const Tensor output = torch::cat(flat);
  fixture.check("output", output);
  (output * fixture.input("cotangent")).sum().backward();
  check_gradients(fixture, *model, input);
}

void check_ss2d(Fixture& fixture) {
  const Json& args = fixture.config.at("args");
  Ss2dOptions options;
  options.d_model = args.at("d_model");
  options.d_state = args.value("d_state", int64_t{16});
  options.ssm_ratio = args.value("ssm_ratio", 2.0);
  if (args.contains("dt_rank") && args.at("dt_rank").is_number()) options.dt_rank = args["dt_rank"];
  options.d_conv = args.value("d_conv", int64_t{3});
  options.conv_bias = args.value("conv_bias", true);
  options.bias = args.value("bias", false);
  options.act = lower(args.value("act_layer", "silu"));
  options.init = args.value("initialize", "v0");
  options.forward_type = args.value("forward_type", "v2");
  Ss2d layer(options);
  load_exactly(fixture, *layer);
  const bool first = args.value("channel_first", false);
  const auto theirs = [&](const Tensor& map) { return first ? channels_first(map) : map; };
  const Tensor input = fixture.input("input").requires_grad_();
  Trace trace;
  layer->trace = &trace;
  const Tensor output = theirs(layer->forward(first ? channels_last(input) : input));
  fixture.check("in_proj_out", theirs(trace["in_proj_out"]));
  fixture.check("after_conv2d", trace["after_conv2d"]);
  const Tensor normed = trace["out_norm_out"];
  fixture.check("out_norm_out",
                options.forward_type == "v0" ? normed.flatten(1, 2) : theirs(normed));
  fixture.check("output", output);
  (output * fixture.input("cotangent")).sum().backward();
  check_gradients(fixture, *layer, input);
}

}  // namespace

void add_vmamba_checkers(Checkers& all) {
  for (const char* name : {"vmamba", "vmamba_v0", "vmamba_gmlp_posembed"}) all[name] = check_vmamba;
  all["vmamba_backbone"] = check_backbone;
  for (const char* name : {"unidi", "bidi", "cascade", "v0", "v05", "v05_noz"})
    all[std::string("vmamba_ss2d_") + name] = check_ss2d;
}

}  // namespace serpentine::golden
