// Checks of the recordings of segmentation models.
#include <gtest/gtest.h>

#include "core/config.h"
#include "golden/golden.h"
#include "segmentation/segmentation.h"

namespace serpentine::golden {
namespace {

using torch::Tensor;
using Json = nlohmann::json;

/// Also: every published name of every tensor of the model is one of the file, and the reverse.
std::shared_ptr<Model> build_segmenter(const Fixture& fixture, const Json& options) {
  Registry<Model> models("model");
  add_segmentation_models(models);
  auto model = models.build(Config::parse(options.dump()));
  const LoadReport report = load_state_dict(*model, fixture.weights, model->tolerated_keys());
  EXPECT_TRUE(report.ok() && report.tolerated.empty()) << report.text();
  std::map<std::string, Tensor> saved;
  for (const auto& [name, tensor] : state_dict(*model)) {
    for (const auto& key : published_keys(*model, name)) saved[key] = tensor;
  }
  EXPECT_EQ(saved.size(), fixture.weights.size());
  for (const auto& [name, tensor] : fixture.weights) {
    EXPECT_TRUE(saved.count(name) && saved[name].equal(tensor)) << name;
  }
  model->to(fixture.device);
  model->eval();
  return model;
}

/// Forward, trace and gradients.
void check_model(Fixture& fixture, Model& model) {
  fixture.forward_tolerance = 1e-4;
  fixture.gradient_tolerance = 2e-4;
  Batch batch;
  batch.input = fixture.input("input").requires_grad_();
  std::map<std::string, Tensor> trace;
  model.trace = &trace;
  const Tensor output = model.forward(batch);
  model.trace = nullptr;
  for (const auto& [name, tensor] : trace) fixture.check(name, tensor);
  fixture.check("output", output);
  (output * fixture.input("cotangent")).sum().backward();
  for (const auto& parameter : model.named_parameters()) {
    for (const auto& key : published_keys(model, parameter.key()))
      fixture.check("grad." + key, parameter.value().grad());
  }
  fixture.check("grad.input", batch.input.grad());
}

std::string extent(const Json& sides) {
  std::string text;
  for (const auto& side : sides)
    text += (text.empty() ? "" : "x") + std::to_string(side.get<int64_t>());
  return text;
}

/// One entry a stage from a list, or the same for all from a number.
Json per_stage(const Json& given, size_t stages) {
  return given.is_array() ? given : Json(std::vector<Json>(stages, given));
}

Json umamba_options(const Fixture& fixture, const std::string& type) {
  const Json& args = fixture.config.at("args");
  const bool volumes = args.at("conv_op").get<std::string>().find("3d") != std::string::npos;
  const auto stages = args.at("n_stages").get<size_t>();
  Json options = {{"type", type},
                  {"dims", volumes ? 3 : 2},
                  {"in_channels", args.at("input_channels")},
                  {"classes", args.at("num_classes")},
                  {"features", per_stage(args.at("features_per_stage"), stages)},
                  {"convs", per_stage(args.at("n_conv_per_stage"), stages)},
                  {"decoder_convs", per_stage(args.at("n_conv_per_stage_decoder"), stages - 1)},
                  {"conv_bias", args.value("conv_bias", false)},
                  {"deep_supervision", args.value("deep_supervision", false)}};
  for (const auto& [ours, theirs] :
       {std::pair{"kernels", "kernel_sizes"}, {"strides", "strides"}}) {
    for (const auto& sides : per_stage(args.at(theirs), stages))
      options[ours].push_back(sides.is_array() ? extent(sides) : std::to_string(sides.get<int>()));
  }
  if (args.contains("input_size")) options["input_size"] = args.at("input_size");
  return options;
}

void check_umamba(Fixture& fixture, const std::string& type) {
  check_model(fixture, *build_segmenter(fixture, umamba_options(fixture, type)));
}

void check_segmamba(Fixture& fixture) {
  const Json& args = fixture.config.at("args");
  Json options = {{"type", "segmamba"}, {"slices", {64, 32, 16, 8}}};
  for (const auto& [ours, theirs] : {std::pair{"in_channels", "in_chans"},
                                     {"classes", "out_chans"},
                                     {"depths", "depths"},
                                     {"features", "feat_size"},
                                     {"hidden", "hidden_size"}}) {
    if (args.contains(theirs)) options[ours] = args.at(theirs);
  }
  // the rows that the mixer reads are inside the layer; its output is compared
  for (const auto& name : fixture.names())
    if (name.ends_with(".mamba_in")) fixture.ignore(name);
  check_model(fixture, *build_segmenter(fixture, options));
}

void check_vmunet(Fixture& fixture) {
  const Json &args = fixture.config.at("args"), &outer = args.at("VMUNet"),
             inner = args.value("VSSM", Json::object());
  Json options = {{"type", "vmunet"}, {"sigmoid", true}};
  for (const auto& [ours, theirs] : {std::pair{"in_channels", "input_channels"},
                                     {"classes", "num_classes"},
                                     {"depths", "depths"},
                                     {"depths_decoder", "depths_decoder"},
                                     {"drop_path", "drop_path_rate"}}) {
    if (outer.contains(theirs)) options[ours] = outer.at(theirs);
  }
  for (const char* name : {"dims", "d_state"})
    if (inner.contains(name)) options[name] = inner.at(name);
  check_model(fixture, *build_segmenter(fixture, options));
}

}  // namespace

void add_segmentation_checkers(Checkers& all) {
  for (const char* dims : {"_2d", "_3d"}) {
    all[std::string("umamba_bot") + dims] = [](Fixture& fixture) {
      check_umamba(fixture, "umamba_bot");
    };
    all[std::string("umamba_enc") + dims] = [](Fixture& fixture) {
      check_umamba(fixture, "umamba_enc");
    };
  }
  all["segmamba"] = check_segmamba;
  all["vmunet"] = check_vmunet;
}

}  // namespace serpentine::golden
