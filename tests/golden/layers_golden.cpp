// Checkers of PlainMamba's layer and LocalMamba's mixer.
#include <gtest/gtest.h>

#include "core/config.h"
#include "golden/vision_golden.h"
#include "vision/image_scan.h"
#include "vision/local_directions.h"
#include "vision/plain_mamba.h"
#include "vision/vim_stack.h"

namespace serpentine::golden {
namespace {

using Json = nlohmann::json;
using torch::Tensor;

void check_plain(Fixture& fixture) {
  const Json& args = fixture.config.at("args");
  const Json& mamba = args.at("mamba_cfg");
  PlainMambaOptions options;
  options.dim = args.at("embed_dims");
  options.rms_norm = args.value("use_rms_norm", false);
  options.with_dwconv = args.value("with_dwconv", false);
  options.d_state = mamba.value("d_state", int64_t{16});
  options.expand = mamba.value("expand", 2.0);
  options.conv_size = mamba.value("conv_size", int64_t{7});
  options.conv_bias = mamba.value("conv_bias", true);
  options.bias = mamba.value("bias", true);
  if (mamba.contains("dt_rank") && mamba.at("dt_rank").is_number())
    options.dt_rank = mamba["dt_rank"];
  PlainMambaLayer layer(options);
  load_exactly(fixture, *layer);

  const int64_t height = fixture.config.at("hw_shape")[0], width = fixture.config["hw_shape"][1];
  const ImageScan scan(Config::parse("{type: continuous}"), "");
  const ScanOrder order = scan.order(height, width, 0, fixture.device, {}).order;
  const auto flat = [&](const char* name) {
    std::vector<int64_t> all;
    for (const auto& route : fixture.config.at(name))
      for (const auto& step : route) all.push_back(step.get<int64_t>());
    return torch::tensor(all, torch::kLong);
  };
  EXPECT_TRUE(order.tokens.to(torch::kCPU, torch::kLong).equal(flat("orders")));
  EXPECT_TRUE(moves_of(order, width).cpu().equal(flat("directions")));

  const Tensor input = fixture.input("input").requires_grad_();
  Trace trace;
  layer->trace = &trace;
  const Tensor output = layer->forward(input.unflatten(1, {height, width}), order).flatten(1, 2);
  check_trace(fixture, trace);
  fixture.check("output", output);
  (output * fixture.input("cotangent")).sum().backward();
  check_gradients(fixture, *layer, input);
}

void check_local(Fixture& fixture) {
  const Json& args = fixture.config.at("args");
  const auto directions = args.at("directions").get<std::vector<std::string>>();
  RoutedMambaOptions options;
  options.mamba.d_model = args.at("d_model");
  options.mamba.d_state = args.value("d_state", int64_t{16});
  options.mamba.d_conv = args.value("d_conv", int64_t{4});
  options.mamba.expand = args.value("expand", 2.0);
  options.naming = BranchNames::kNumbered;
  options.channel_gate = true;
  const int64_t height = args.at("token_size")[0], width = args["token_size"][1];
  ClassTokens classes;
  classes.position = args.value("use_middle_cls_token", false) ? "middle" : "none";
  const ImageScan scan(
      Config::parse(scan_with_classes(classes, Config::parse(directions_scan(directions)))), "");
  RoutedMamba mixer(options, scan.num_branches());
  load_exactly(fixture, *mixer);
  // the reference puts columns back as if they were rows
  if (classes.number() == 0) {
    mixer->rearrange = [&](const Tensor& y, int64_t k) {
      const bool columns = directions[static_cast<size_t>(k)].starts_with("v");
      return columns ? published_columns(y, height, width) : y;
    };
  }
  const ScanOrder order =
      in_sequence(scan.order(height, width, classes.number(), at::kCPU, {}).order,
                  classes.places(height * width))
          .to(fixture.device);
  const Tensor input = fixture.input("input").requires_grad_();
  const Tensor output = mixer->forward(input, order);
  fixture.check("output", output);
  (output * fixture.input("cotangent")).sum().backward();
  check_gradients(fixture, *mixer, input);
}

}  // namespace

void add_vision_layer_checkers(Checkers& all) {
  all["plainmamba_layer"] = check_plain;
  all["localmamba_mixer"] = check_local;
}

}  // namespace serpentine::golden
