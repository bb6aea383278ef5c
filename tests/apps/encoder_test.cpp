// What turns tiles into features: a ResNet's state dict, TorchScript, and what is neither.
#include "apps/encoder.h"

#include <fstream>

#include <gtest/gtest.h>
#include <torch/script.h>
#include <torch/torch.h>

#include "apps/command.h"
#include "apps/packages.h"
#include "core/io/files.h"
#include "core/io/safetensors.h"
#include "core/io/torch_pickle.h"
#include "pathology/colour_encoder.h"
#include "support/close.h"

namespace serpentine {
namespace {

class Encoders : public FolderTest {
 protected:
  Encoder open(const std::string& name, int64_t size = 64, int64_t input_size = 0) const {
    EncoderOptions options;
    options.source = at(name);
    options.device = "cpu";
    options.input_size = input_size;
    return open_encoder(options, size);
  }
  std::string refusal(const std::string& name, int64_t size = 64) const {
    try {
      open(name, size);
    } catch (const c10::Error& error) {
      return error.what_without_backtrace();
    } catch (const std::exception& error) {
      return error.what();
    }
    return "";
  }
  static torch::Tensor tiles(int64_t size) {
    torch::manual_seed(5);
    return torch::randint(0, 256, {3, size, size, 3}, torch::kLong).to(torch::kUInt8);
  }
  /// What an encoder of ImageNet's scaling sees.
  static torch::Tensor scaled(const torch::Tensor& pictures) {
    const auto plane = [](float r, float g, float b) {
      return torch::tensor({r, g, b}).view({1, 3, 1, 1});
    };
    return (pictures.permute({0, 3, 1, 2}).to(torch::kFloat) / 255 -
            plane(0.485F, 0.456F, 0.406F)) /
           plane(0.229F, 0.224F, 0.225F);
  }
  /// A state dict in torchvision's layout, with its classifier, and the model without it.
  static std::shared_ptr<Model> resnet(const std::string& size, StateDict& weights) {
    torch::manual_seed(1);
    const auto model = all_packages().models.build(
        Config::parse("type: resnet\nsize: \"" + size + "\"\nhead: false\n"));
    model->eval();
    for (const auto& entry : model->named_parameters())
      weights.emplace_back(entry.key(), entry.value().detach());
    for (const auto& entry : model->named_buffers())
      weights.emplace_back(entry.key(), entry.value());
    weights.emplace_back("fc.weight", torch::randn({1000, size == "50" ? 2048 : 512}));
    weights.emplace_back("fc.bias", torch::randn({1000}));
    return model;
  }
};

TEST_F(Encoders, AResNetIsKnownByItsStateDict) {
  const torch::NoGradGuard no_grad;
  for (const char* size : {"18", "50"}) {
    StateDict weights;
    const auto model = resnet(size, weights);
    write_safetensors(at("resnet.safetensors"), weights);
    write_torch_state_dict(at("resnet.pth"), weights);
    std::map<std::string, torch::Tensor> trace;
    model->trace = &trace;
    Batch batch;
    batch.input = scaled(tiles(64));
    auto want = model->forward(batch);
    model->trace = nullptr;
    if (trace.count("features")) want = trace["features"];
    if (want.dim() > 2) want = want.flatten(2).mean(2);
    for (const char* name : {"resnet.safetensors", "resnet.pth"}) {
      const Encoder encoder = open(name);
      EXPECT_EQ(encoder.width, std::string(size) == "50" ? 2048 : 512) << name;
      EXPECT_EQ(encoder.name, at(name));
      testing::expect_close(encoder.encode(tiles(64)), want, 1e-4, name);
    }
  }
}

TEST_F(Encoders, TorchScriptReadsScaledImages) {
  torch::jit::Module means("means");
  means.define("def forward(self, x):\n  return x.mean([2, 3])\n");
  means.save(at("means.ts"));
  const Encoder encoder = open("means.ts");
  EXPECT_EQ(encoder.width, 3);
  testing::expect_close(encoder.encode(tiles(64)), scaled(tiles(64)).mean({2, 3}), 1e-5, "means");

  torch::jit::Module both("both");  // of several answers the first; of a map its mean
  both.define("def forward(self, x):\n  return x[:, :2], x.mean([2, 3])\n");
  both.save(at("both.jit"));
  const Encoder first = open("both.jit");
  EXPECT_EQ(first.width, 2);
  testing::expect_close(first.encode(tiles(64)), scaled(tiles(64)).mean({2, 3}).slice(1, 0, 2),
                        1e-5, "both");
}

TEST_F(Encoders, TilesAreResizedToTheInputSize) {
  torch::jit::Module strict("strict");
  strict.define(
      "def forward(self, x):\n"
      "  return x.reshape([x.size(0), 3, 1024]).mean([2])\n");  // only 32 x 32 pixels
  strict.save(at("strict.ts"));
  const std::string refused = refusal("strict.ts");
  EXPECT_NE(refused.find("strict.ts fails on tiles of 64 pixels: "), std::string::npos) << refused;
  EXPECT_NE(refused.find("--input-size"), std::string::npos) << refused;
  EXPECT_EQ(refused.find('\n'), std::string::npos) << refused;
  const Encoder encoder = open("strict.ts", 64, 32);
  // a mean hardly changes when the picture is reduced
  testing::expect_close(encoder.encode(tiles(64)), scaled(tiles(64)).mean({2, 3}), 0.05, "reduced");
}

TEST_F(Encoders, WhatIsNoneIsNamed) {
  std::ofstream(at("text.ts")) << "no model";
  EXPECT_NE(refusal("text.ts").find("is no TorchScript file"), std::string::npos);
  write_safetensors(at("other.safetensors"), {{"weight", torch::ones({2, 2})}});
  EXPECT_NE(refusal("other.safetensors").find("not the state dict of a ResNet"), std::string::npos);
  EXPECT_NE(refusal("nothing.pth").find("there is no such"), std::string::npos);
  StateDict weights;
  resnet("18", weights);
  weights.erase(weights.begin());
  write_safetensors(at("cut.safetensors"), weights);
  EXPECT_NE(refusal("cut.safetensors").find("does not fit"), std::string::npos);
  torch::jit::Module scalar("scalar");
  scalar.define("def forward(self, x):\n  return x.mean()\n");
  scalar.save(at("scalar.ts"));
  EXPECT_NE(refusal("scalar.ts").find("expected [1, F]"), std::string::npos)
      << refusal("scalar.ts");
}

TEST_F(Encoders, ColourNeedsNoWeights) {
  EncoderOptions options;
  options.source = "colour";
  const Encoder encoder = open_encoder(options, 64);
  EXPECT_EQ(encoder.width, kColourFeatures);
  EXPECT_EQ(encoder.encode(tiles(64)).size(1), kColourFeatures);
  options.input_size = 32;
  EXPECT_THROW(open_encoder(options, 64), UsageError) << "an option that nothing would heed";
}

}  // namespace
}  // namespace serpentine
