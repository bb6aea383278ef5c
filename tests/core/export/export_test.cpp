// Models as ONNX, run by onnxruntime where this Python (or SERPENTINE_ONNX_PYTHON) has it.
#include "core/export/export_onnx.h"

#include <cstdlib>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "core/io/files.h"
#include "core/io/npy.h"
#include "core/nn/mamba.h"
#include "core/ops/merge.h"
#include "core/ops/selective_scan.h"
#include "scans/serialization.h"
#include "vision/vision.h"

namespace serpentine {
namespace {

class Onnx : public FolderTest {
 protected:
  static std::string python() {
    const char* chosen = std::getenv("SERPENTINE_ONNX_PYTHON");
    return chosen != nullptr ? chosen : SERPENTINE_PYTHON;
  }
  static bool has_runtime() {
    return std::system(("'" + python() + "' -c 'import onnxruntime' > /dev/null 2>&1").c_str()) ==
           0;
  }

  /// The largest difference between `forward` and onnxruntime on other values than the traced ones,
  /// over the largest output.
  double difference(const std::function<torch::Tensor(const torch::Tensor&)>& forward,
                    const at::IntArrayRef shape) {
    const torch::NoGradGuard no_grad;
    torch::manual_seed(1);
    const auto made = export_onnx(forward, torch::randn(shape));
    write("model.onnx", made.bytes);
    const auto input = torch::randn(shape);
    write_npy(at("input.npy"), input);
    write("run.py", R"(
import numpy, onnxruntime
session = onnxruntime.InferenceSession('model.onnx')
numpy.save('output.npy', session.run(['output'], {'input': numpy.load('input.npy')})[0])
)");
    const std::string command =
        "cd '" + folder_.string() + "' && '" + python() + "' run.py > out.txt 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0) << read_bytes(at("out.txt"));
    const auto expected = forward(input), got = read_npy(at("output.npy"));
    EXPECT_EQ(got.sizes(), expected.sizes());
    return ((got - expected).abs().max() / expected.abs().max()).item<double>();
  }
};

#define SERPENTINE_NEEDS_RUNTIME() \
  if (!has_runtime()) GTEST_SKIP() << python() << " has no onnxruntime"

std::function<torch::Tensor(const torch::Tensor&)> classifier(const std::string& yaml) {
  Registry<Model> models{"model"};
  add_vision_models(models);
  torch::manual_seed(2);
  const auto model = models.build(Config::parse(yaml));
  for (auto& parameter : model->parameters()) {
    parameter.requires_grad_(false);
    // as they start, layers hardly change the stream, and a wrong scan would pass
    if (parameter.dim() >= 2) parameter.mul_(3);
  }
  model->eval();
  return [model](const torch::Tensor& images) {
    Batch batch;
    batch.input = images;
    return model->forward(batch);
  };
}

TEST_F(Onnx, ATracedScanIsTheScan) {
  const torch::NoGradGuard no_grad;
  Registry<Serialization> scans{"serialization"};
  add_serializations(scans);
  // 5 x 7: cross has equal sequences, atrous pads and sequences of its own
  for (const char* yaml : {"{type: cross}", "{type: atrous, step: 2}"}) {
    TokenLayout layout;
    layout.num_tokens = 35;
    layout.height = 5;
    layout.width = 7;
    const auto scan = build_serialization(scans, Config::parse(yaml));
    const auto order = scan->order(layout, {});
    torch::manual_seed(3);
    SelectiveScanArgs args;
    const int64_t routes = order.num_branches;
    args.u = torch::randn({2, 35, 6});
    args.delta = torch::randn({2, 35, routes, 6});
    args.A = -torch::rand({routes, 6, 3});
    args.B = torch::randn({2, 35, routes, 3});
    args.C = torch::randn({2, 35, routes, 3});
    args.D = torch::randn({routes, 6});
    args.delta_bias = torch::randn({routes, 6});
    const auto expected = selective_scan(args, order).y;
    const auto made = export_onnx(
        [&](const torch::Tensor& u) {
          auto traced = args;
          traced.u = u;
          const auto y = selective_scan(traced, order).y;
          EXPECT_LT((y - expected).abs().max().item<double>(), 1e-5) << yaml;
          return y;
        },
        args.u);
    EXPECT_EQ(made.operators.at("Scan"), 1) << yaml;
  }
}

TEST_F(Onnx, WhatHasNoCounterpartIsNamed) {
  const torch::NoGradGuard no_grad;
  try {
    export_onnx([](const torch::Tensor& x) { return torch::linalg_norm(torch::cumsum(x, 0)); },
                torch::randn({3}));
    FAIL() << "nothing thrown";
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what()).find("aten::cumsum"), std::string::npos) << error.what();
  }
}

TEST_F(Onnx, ResNet) {
  SERPENTINE_NEEDS_RUNTIME();
  EXPECT_LT(
      difference(classifier("{type: resnet, size: '18', stem: small, classes: 7}"), {2, 3, 24, 20}),
      1e-4);
}

TEST_F(Onnx, VMamba) {
  SERPENTINE_NEEDS_RUNTIME();
  for (const char* variant : {"v3", "v05_noz", "v0"}) {
    const std::string yaml =
        "{type: vmamba, depths: [1, 1, 2], dims: [16, 24, 32], d_state: 4, classes: 5, "
        "forward_type: " +
        std::string(variant) + "}";
    EXPECT_LT(difference(classifier(yaml), {2, 3, 40, 32}), 1e-4) << variant;
  }
}

TEST_F(Onnx, VMambaAsPublished) {
  SERPENTINE_NEEDS_RUNTIME();
  for (const char* size : {"tiny", "tiny_v0"}) {
    const std::string yaml = "{type: vmamba, size: " + std::string(size) +
                             ", depths: [1, 1], dims: [32, 48], classes: 5}";
    EXPECT_LT(difference(classifier(yaml), {1, 3, 32, 32}), 1e-4) << size;
  }
}

TEST_F(Onnx, WhatIsFilledThroughAPointerIsNotAConstant) {
  const torch::NoGradGuard no_grad;
  const auto forward = [](const torch::Tensor& x) { return x * at::tensor({1.0F, 2.0F, 3.0F}); };
  try {
    export_onnx(forward, torch::randn({3}));
    FAIL() << "nothing thrown";
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what()).find("aten::empty"), std::string::npos) << error.what();
  }
}

TEST_F(Onnx, VimAndEfficientVMamba) {
  SERPENTINE_NEEDS_RUNTIME();
  for (const char* yaml :
       {"{type: vim, depth: 2, dim: 24, image_size: [32], patch_size: 8, stride: 8, classes: 5}",
        "{type: efficient_vmamba, depths: [1, 1, 1, 1], dims: [16], classes: 5}"}) {
    EXPECT_LT(difference(classifier(yaml), {1, 3, 32, 32}), 1e-4) << yaml;
  }
}

TEST_F(Onnx, MedMamba) {
  SERPENTINE_NEEDS_RUNTIME();
  EXPECT_LT(difference(classifier("{type: medmamba, depths: [1, 1, 1], dims: [16], classes: 5}"),
                       {2, 3, 40, 36}),
            1e-4);
}

TEST_F(Onnx, MambaBlock) {
  SERPENTINE_NEEDS_RUNTIME();
  MambaOptions options;
  options.d_model = 12;
  torch::manual_seed(4);
  Mamba mamba(options);
  for (auto& parameter : mamba->parameters()) parameter.requires_grad_(false);
  EXPECT_LT(difference([&](const torch::Tensor& x) { return mamba->forward(x); }, {2, 17, 12}),
            1e-4);
}

}  // namespace
}  // namespace serpentine
