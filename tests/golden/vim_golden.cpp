// Checkers of Vim and ShuffleMamba.
#include <gtest/gtest.h>

#include "core/config.h"
#include "golden/vision_golden.h"
#include "vision/position_embedding.h"
#include "vision/vision.h"

namespace serpentine::golden {
namespace {

using Json = nlohmann::json;
using torch::Tensor;

Json sides(const Json& given) { return given.is_array() ? given : Json::array({given}); }

void check_vim(Fixture& fixture) {
  const Json& args = fixture.config.at("args");
  Json options = {{"type", "vim"}};
  copy_options(options, args,
               {{"patch_size", "patch_size"},
                {"stride", "stride"},
                {"dim", "embed_dim"},
                {"depth", "depth"},
                {"channels", "channels"},
                {"classes", "num_classes"},
                {"pool", "final_pool_type"},
                {"bimamba", "bimamba_type"},
                {"divide_out", "if_divide_out"},
                {"bidirectional_pairs", "if_bidirectional"},
                {"pos_embed", "if_abs_pos_embed"},
                {"rope", "if_rope"},
                {"rope_residual", "if_rope_residual"},
                {"rms_norm", "rms_norm"},
                {"residual_in_fp32", "residual_in_fp32"},
                {"drop_path", "drop_path_rate"},
                {"layer_scale", "init_layer_scale"}});
  options["image_size"] = sides(args.value("img_size", Json(224)));
  if (args.contains("d_state")) options["mamba"] = {{"d_state", args.at("d_state")}};
  const bool classes = args.value("if_cls_token", true);
  const bool both = args.value("use_double_cls_token", false);
  const bool middle = args.value("use_middle_cls_token", true);
  options["class_token"] = !classes ? "none" : both ? "both" : middle ? "middle" : "first";
  if (options.value("rope", false)) {
    // the buffers are ours before they are the file's
    Registry<Model> models("model");
    add_vision_models(models);
    const auto fresh = models.build(Config::parse(options.dump()));
    const auto buffers = fresh->named_buffers();
    for (const auto& [name, tensor] : fixture.weights)
      if (const auto* own = buffers.find(name)) {
        EXPECT_TRUE(torch::allclose(*own, tensor, 1e-5, 1e-6)) << name;
      }
  }
  const auto model = build_image_model(fixture, options);
  Batch batch;
  batch.input = fixture.input("input").requires_grad_();
  std::map<std::string, Tensor> trace;
  model->trace = &trace;
  const Tensor output = model->forward(batch);
  model->trace = nullptr;
  if (options.value("bidirectional_pairs", false)) {
    // the reference's second layers read, and give, the sequence from its end
    for (auto& [name, tensor] : trace) {
      if (!name.starts_with("block")) continue;
      if (std::stoll(name.substr(5)) % 2 == 1) tensor = tensor.flip(1);
    }
  }
  check_trace(fixture, trace);
  fixture.check("output", output);
  (output * fixture.input("cotangent")).sum().backward();
  check_gradients(fixture, *model, batch.input);
}

void check_interpolation(Fixture& fixture) {
  const Json& args = fixture.config.at("args");
  const auto extra = args.value("num_extra_tokens", int64_t{1});
  const auto grid = args.at("new_grid").get<int64_t>();
  fixture.check("output",
                resized_positions_published(fixture.input("input"), grid * grid + extra, extra));
}

void check_shuffle_mamba(Fixture& fixture) {
  const Json& args = fixture.config.at("args");
  Json options = {{"type", "shuffle_mamba"}};
  copy_options(options, args,
               {{"patch_size", "patch_size"},
                {"stride", "stride"},
                {"dim", "embed_dim"},
                {"depth", "depth"},
                {"channels", "channels"},
                {"classes", "num_classes"},
                {"rms_norm", "rms_norm"},
                {"residual_in_fp32", "residual_in_fp32"},
                {"drop_path", "drop_path_rate"},
                {"shuffle_rate", "shuffle_rate"},
                {"registers", "num_cls_tokens"},
                {"register_reduce", "cls_reduce"}});
  if (fixture.config.at("model") == "shufflemamba_reg") {
    // these have no stride of their own, and one register by default
    options["stride"] = args.value("patch_size", int64_t{16});
    options["registers"] = args.value("num_cls_tokens", int64_t{1});
  }
  options["image_size"] = sides(args.value("img_size", Json(224)));
  check_image_model(fixture, *build_image_model(fixture, options));
}

}  // namespace

void add_vim_checkers(Checkers& all) {
  for (const char* name : {"vim", "vim_bidirectional", "vim_doublecls", "vim_headcls",
                           "vim_mean_nocls", "vim_rope", "vim_stride8", "vim_v1_layernorm"})
    all[name] = check_vim;
  all["vim_pos_embed_interpolation"] = check_interpolation;
  for (const char* name : {"shufflemamba", "shufflemamba_reg"}) all[name] = check_shuffle_mamba;
}

}  // namespace serpentine::golden
