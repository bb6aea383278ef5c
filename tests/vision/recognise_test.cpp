// Checkpoints are recognised by their names and shapes, and load into what was recognised.
#include "vision/recognise.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "core/config.h"
#include "vision/image_model.h"
#include "vision/vision.h"

namespace serpentine {
namespace {

std::shared_ptr<ImageModel> built(const std::string& options) {
  Registry<Model> models("model");
  add_vision_models(models);
  return std::dynamic_pointer_cast<ImageModel>(models.build(Config::parse(options)));
}

struct Case {
  const char *name, *options, *size;
};

class Recognises : public ::testing::TestWithParam<Case> {};

TEST_P(Recognises, FamilySizeAndEveryTensor) {
  torch::manual_seed(0);
  const auto original = built(GetParam().options);
  StateDict weights;
  for (const auto& [name, tensor] : state_dict(*original))
    weights.emplace_back("module." + name, tensor);
  const Recognised found = recognise(weights);
  if (*GetParam().size) {
    EXPECT_EQ(found.size, GetParam().size);
  }
  const auto copy = built(found.options);
  const LoadReport report = load_state_dict(*copy, copy->adapt(found.weights));
  EXPECT_TRUE(report.ok()) << found.options << "\n" << report.text();
  const auto there = state_dict(*copy);
  ASSERT_EQ(there.size(), weights.size());
  Batch batch;
  batch.input = torch::randn({1, 3, 64, 64});
  original->eval();
  copy->eval();
  EXPECT_TRUE(original->forward(batch).equal(copy->forward(batch)));
}

INSTANTIATE_TEST_SUITE_P(
    , Recognises,
    ::testing::Values(
        Case{"vim_tiny", "{type: vim, size: tiny}", "vim tiny"},
        Case{"vim_tiny_plus", "{type: vim, size: tiny_plus}", "vim tiny (stride 8)"},
        Case{"vim_v1", "{type: vim, dim: 32, depth: 2, bimamba: v1, rms_norm: false}", ""},
        Case{"vim_mean",
             "{type: vim, dim: 32, depth: 2, class_token: none, pool: mean, rope: true, "
             "layer_scale: "
             "0.1, classes: 7, mamba: {d_state: 4, dt_rank: 3}}",
             ""},
        Case{"vmamba_tiny", "{type: vmamba, size: tiny}",
             "vmamba tiny (depths 8 in the third stage)"},
        Case{"vmamba_tiny_v0", "{type: vmamba, size: tiny_v0}",
             "vmamba tiny_v0 (depths 9 in the third stage)"},
        Case{
            "vmamba_other",
            "{type: vmamba, depths: [1, 2], dims: [8, 20], gmlp: true, mlp_ratio: 2, downsample: "
            "v2, "
            "patchembed: v1, conv_bias: true, forward_type: v05, posembed: true, image_size: [64], "
            "classes: 5, dt_rank: 3, d_state: 2}",
            ""},
        Case{"efficient_tiny", "{type: efficient_vmamba, size: tiny}", "efficient_vmamba tiny"},
        Case{"shuffle_reg",
             "{type: shuffle_mamba, dim: 32, depth: 2, registers: 4, register_reduce: 2}", ""},
        Case{"plain_l1", "{type: plain_mamba, size: l1}", "plain_mamba l1"},
        Case{"medmamba_tiny", "{type: medmamba, size: tiny, classes: 6}", "medmamba tiny"},
        Case{"resnet_34", "{type: resnet, size: '34', classes: 10}", "resnet 34"}),
    [](const auto& of) { return std::string(of.param.name); });

TEST(RecognisesLayouts, OfVmambasReleases) {
  const auto model = built(
      "{type: vmamba, depths: [1, 1], dims: [8], classes: 3, forward_type: v0, "
      "mlp_ratio: 0, patchembed: v1, downsample: v1, d_state: 2, ssm_ratio: 2}");
  const auto replace = [](std::string name, const std::string& from, const std::string& to) {
    const size_t at = name.find(from);
    if (at != std::string::npos) name.replace(at, from.size(), to);
    return name;
  };
  StateDict first, single;
  for (const auto& [name, tensor] : state_dict(*model)) {
    std::string old = name;
    for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
             {"patch_embed.0.", "patch_embed.proj."},
             {"patch_embed.2.", "patch_embed.norm."},
             {".norm.", ".ln_1."},
             {".op.", ".self_attention."},
             {"classifier.ln_1.", "norm."},
             {"classifier.head.", "head."},
             {"downsample.ln_1.", "downsample.norm."},
             {"patch_embed.ln_1.", "patch_embed.norm."}})
      old = replace(old, from, to);
    first.emplace_back(old, tensor);
    const bool grouped = name.ends_with("x_proj_weight") || name.ends_with("dt_projs_weight");
    single.emplace_back(grouped ? replace(name, "_weight", ".weight") : name,
                        grouped ? tensor.flatten(0, 1) : tensor);
  }
  for (const auto& layout : {first, single}) {
    const Recognised found = recognise(layout);
    EXPECT_EQ(found.family, "vmamba");
    const auto copy = built(found.options);
    const LoadReport report = load_state_dict(*copy, copy->adapt(found.weights));
    EXPECT_TRUE(report.ok()) << report.text();
    Batch batch;
    batch.input = torch::randn({1, 3, 40, 40});
    model->eval();
    copy->eval();
    EXPECT_TRUE(model->forward(batch).equal(copy->forward(batch)));
  }
}

TEST(RecognisesNothing, InOtherCheckpoints) {
  try {
    recognise({{"encoder.weight", torch::zeros({2, 2})}});
    FAIL() << "an unknown checkpoint was taken";
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what_without_backtrace()).find("no image model"),
              std::string::npos);
  }
}

TEST(VimPositions, ResizeAsPublishedOrAroundTheClassToken) {
  const auto small = built("{type: vim, dim: 16, depth: 1, image_size: [64]}");
  for (const std::string rule : {"published", "correct"}) {
    const auto large =
        built("{type: vim, dim: 16, depth: 1, image_size: [96], pos_embed_resize: " + rule + "}");
    const LoadReport report = load_state_dict(*large, large->adapt(state_dict(*small)));
    EXPECT_TRUE(report.ok()) << report.text();
    const auto from = small->named_parameters()["pos_embed"],
               to = large->named_parameters()["pos_embed"];
    // 16 patches with the class token before the eighth; 36 with it before the eighteenth
    EXPECT_EQ(to.select(1, 18).equal(from.select(1, 8)), rule == "correct");
    EXPECT_EQ(to.select(1, 0).equal(from.select(1, 0)), rule == "published");
  }
}

}  // namespace
}  // namespace serpentine
