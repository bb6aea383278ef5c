// Checkers of EfficientVMamba and MedMamba.
#include <gtest/gtest.h>

#include "golden/vision_golden.h"
#include "vision/ss2d.h"

namespace serpentine::golden {
namespace {

using Json = nlohmann::json;
using torch::Tensor;

Json as_list(const Json& given) { return given.is_array() ? given : Json::array({given}); }

void check_efficient_layer(Fixture& fixture) {
  const Json& args = fixture.config.at("args");
  EXPECT_EQ(args.value("step_size", 2), 2);
  Json options = {{"type", "efficient_vmamba"}};
  copy_options(options, args,
               {{"patch_size", "patch_size"},
                {"channels", "in_chans"},
                {"classes", "num_classes"},
                {"depths", "depths"},
                {"dims", "dims"},
                {"ssm_ratio", "ssm_ratio"},
                {"rank_ratio", "ssm_rank_ratio"},
                {"forward_type", "forward_type"},
                {"drop_path", "drop_path_rate"},
                {"patch_norm", "patch_norm"}});
  if (options.contains("dims")) options["dims"] = as_list(options["dims"]);
  check_image_model(fixture, *build_image_model(fixture, options));
}

void check_es2d(Fixture& fixture) {
  const Json& args = fixture.config.at("args");
  Ss2dOptions options;
  options.d_model = args.at("d_model");
  options.d_state = args.value("d_state", int64_t{16});
  options.ssm_ratio = args.value("ssm_ratio", 2.0);
  options.rank_ratio = args.value("ssm_rank_ratio", 0.0);
  if (args.contains("dt_rank") && args.at("dt_rank").is_number()) options.dt_rank = args["dt_rank"];
  options.d_conv = args.value("d_conv", int64_t{3});
  options.conv_bias = args.value("conv_bias", true);
  options.forward_type = args.value("forward_type", "v2");
  options.scan = Config::parse("{type: atrous, step: 2}");
  Ss2d layer(options);
  load_exactly(fixture, *layer);
  const Tensor input = fixture.input("input").requires_grad_();
  Trace trace;
  layer->trace = &trace;
  const Tensor output = layer->forward(input);
  fixture.check("after_conv2d", trace["after_conv2d"]);
  fixture.check("out_norm_out", trace["out_norm_out"].flatten(1, 2));
  fixture.check("output", output);
  (output * fixture.input("cotangent")).sum().backward();
  check_gradients(fixture, *layer, input);
}

void check_medmamba(Fixture& fixture) {
  const Json& args = fixture.config.at("args");
  Json options = {{"type", "medmamba"}};
  copy_options(options, args,
               {{"patch_size", "patch_size"},
                {"channels", "in_chans"},
                {"classes", "num_classes"},
                {"depths", "depths"},
                {"dims", "dims"},
                {"d_state", "d_state"},
                {"drop_path", "drop_path_rate"},
                {"patch_norm", "patch_norm"}});
  if (options.contains("dims")) options["dims"] = as_list(options["dims"]);
  check_image_model(fixture, *build_image_model(fixture, options));
}

}  // namespace

void add_visual_family_checkers(Checkers& all) {
  all["efficientvmamba"] = check_efficient_layer;
  all["es2d"] = check_es2d;
  all["medmamba"] = check_medmamba;
}

}  // namespace serpentine::golden
