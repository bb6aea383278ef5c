// The trainer's parts: optimisers, averages, mixed precision.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <sstream>

#include <nlohmann/json.hpp>

#include "core/nn/parameter_groups.h"
#include "core/train/ema.h"
#include "core/train/fused_optim.h"
#include "core/train/optim.h"
#include "core/train/precision.h"
#include "toy.h"

namespace serpentine {

namespace {

torch::Tensor loss_of(toy::Net& net) {
  toy::Squares task;
  const toy::Points points(9);
  return task.loss(net, points.get_batch({0, 1, 2, 3, 4})).value;
}

void steps(toy::Net& net, torch::optim::Optimizer& optimizer, int count) {
  for (int i = 0; i < count; ++i) {
    optimizer.zero_grad();
    loss_of(net).backward();
    optimizer.step();
  }
}

OptimizerOptions of_type(const std::string& type) {
  OptimizerOptions options;
  options.type = type;
  options.lr = 0.01;
  options.weight_decay = 0.1;
  options.momentum = 0.9;
  return options;
}

class Optimizers : public ::testing::TestWithParam<const char*> {};

TEST_P(Optimizers, GoOnFromASavedState) {
  torch::manual_seed(1);
  const OptimizerOptions options = of_type(GetParam());
  toy::Net net(0), copy(0);
  auto optimizer = make_optimizer(options, net);
  steps(net, *optimizer, 5);
  load_state_dict(copy, state_dict(net));
  auto fresh = make_optimizer(options, copy);
  set_optimizer_state(*fresh, copy, optimizer_state(*optimizer, net));
  steps(net, *optimizer, 5);
  steps(copy, *fresh, 5);
  EXPECT_TRUE(torch::equal(net.first->weight, copy.first->weight));
  EXPECT_TRUE(torch::equal(net.last->bias, copy.last->bias));
}

TEST_P(Optimizers, MoveTheWeightsAsTorchDoes) {
  torch::manual_seed(1);
  OptimizerOptions options = of_type(GetParam());
  options.decay = "all";
  toy::Net net(0), copy(0);
  load_state_dict(copy, state_dict(net));
  auto ours = make_optimizer(options, net);
  std::unique_ptr<torch::optim::Optimizer> theirs;
  const std::string type = GetParam();
  if (type == "adam")
    theirs = std::make_unique<torch::optim::Adam>(
        copy.parameters(), torch::optim::AdamOptions(0.01).weight_decay(0.1));
  if (type == "adamw")
    theirs = std::make_unique<torch::optim::AdamW>(
        copy.parameters(), torch::optim::AdamWOptions(0.01).weight_decay(0.1));
  if (type == "sgd")
    theirs = std::make_unique<torch::optim::SGD>(
        copy.parameters(), torch::optim::SGDOptions(0.01).weight_decay(0.1).momentum(0.9));
  steps(net, *ours, 4);
  steps(copy, *theirs, 4);
  EXPECT_TRUE(torch::equal(net.first->weight, copy.first->weight));
  EXPECT_TRUE(torch::equal(net.first->bias, copy.first->bias));
}

/// `net` after steps of LibTorch's optimiser, fused ones and LibTorch's again.
template <class Optimizer, class Options>
void expect_fused_as_plain(const Options& options, torch::Device device) {
  toy::Net plain(0), fused(0);
  load_state_dict(fused, state_dict(plain));
  fused.to(device);
  Optimizer theirs(plain.parameters(), options), ours(fused.parameters(), options);
  for (int i = 0; i < 6; ++i) {
    theirs.zero_grad();
    loss_of(plain).backward();
    theirs.step();
    ours.zero_grad();
    toy::Squares task;
    task.loss(fused, toy::Points(9).get_batch({0, 1, 2, 3, 4}).to(device)).value.backward();
    if (i == 0 || i == 4) {
      ours.Optimizer::step();
    } else {
      fused_step(ours);
    }
  }
  for (const auto& item : plain.named_parameters()) {
    const torch::Tensor other = fused.named_parameters()[item.key()].cpu();
    EXPECT_TRUE(torch::allclose(item.value(), other, 1e-5, 1e-6))
        << item.key() << " on " << device << ": " << (item.value() - other).abs().max();
  }
}

TEST(Optimizers, StepAsOneOnEveryDevice) {
  namespace optim = torch::optim;
  std::vector<torch::Device> devices = {torch::kCPU};
  if (torch::cuda::is_available()) devices.emplace_back(torch::kCUDA);
  for (const torch::Device device : devices) {
    for (const bool amsgrad : {false, true}) {
      expect_fused_as_plain<optim::AdamW>(
          optim::AdamWOptions(0.01).weight_decay(0.1).amsgrad(amsgrad), device);
      expect_fused_as_plain<optim::Adam>(
          optim::AdamOptions(0.01).weight_decay(0.1).amsgrad(amsgrad), device);
    }
    expect_fused_as_plain<optim::SGD>(optim::SGDOptions(0.01).weight_decay(0.1), device);
    expect_fused_as_plain<optim::SGD>(optim::SGDOptions(0.01).momentum(0.9).nesterov(true), device);
    expect_fused_as_plain<optim::SGD>(optim::SGDOptions(0.01).momentum(0.9).dampening(0.1), device);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Optimizers, ::testing::Values("adamw", "adam", "sgd"));

TEST(Optimizers, LeaveBiasesAndNamedParametersUndecayed) {
  toy::Net net(0);
  OptimizerOptions options = of_type("adamw");
  options.no_weight_decay = {"las*"};
  auto optimizer = make_optimizer(options, net);
  ASSERT_EQ(optimizer->param_groups().size(), 2U);
  EXPECT_EQ(optimizer->param_groups()[0].params().size(), 2U) << "first.weight and unused.weight";
  EXPECT_EQ(optimizer->param_groups()[1].params().size(), 6U);
  set_rates(*optimizer, base_rates(*optimizer), 0.5);
  EXPECT_DOUBLE_EQ(optimizer->param_groups()[1].options().get_lr(), 0.005);
}

/// Parameters as an image model has them.
class Deep : public torch::nn::Module {
 public:
  Deep() {
    register_parameter("pos_embed", torch::zeros({1, 4}));
    add("patch_embed.proj");
    for (const char* block :
         {"layers.0.blocks.0.mlp", "layers.0.blocks.1.mlp", "layers.1.blocks.0.mlp"})
      add(block);
    add("norm");
    add("head");
  }

 private:
  /// A linear layer under a path of modules.
  void add(const std::string& path) {
    torch::nn::Module* at = this;
    std::istringstream words(path);
    for (std::string word; std::getline(words, word, '.');) {
      const auto children = at->named_children();
      if (children.find(word) == nullptr)
        at->register_module(word, std::make_shared<torch::nn::Module>());
      at = at->named_children()[word].get();
    }
    at->register_parameter("weight", torch::zeros({2, 2}));
  }
};

TEST(Optimizers, EarlierLayersLearnMoreSlowly) {
  const Deep net;
  const auto depths = parameter_depths(net);
  EXPECT_EQ(depths.at("pos_embed"), 0);
  EXPECT_EQ(depths.at("patch_embed.proj.weight"), 0);
  EXPECT_EQ(depths.at("layers.0.blocks.0.mlp.weight"), 1);
  EXPECT_EQ(depths.at("layers.1.blocks.0.mlp.weight"), 3);
  EXPECT_EQ(depths.at("norm.weight"), 4);
  EXPECT_EQ(depths.at("head.weight"), 4);
  OptimizerOptions options = of_type("adamw");
  options.layer_decay = 0.5;
  auto optimizer = make_optimizer(options, net);
  std::map<const void*, double> rates;
  for (const auto& group : optimizer->param_groups()) {
    for (const auto& parameter : group.params())
      rates[parameter.unsafeGetTensorImpl()] = group.options().get_lr();
  }
  for (const auto& item : net.named_parameters()) {
    EXPECT_DOUBLE_EQ(rates.at(item.value().unsafeGetTensorImpl()),
                     0.01 * std::pow(0.5, 4 - static_cast<double>(depths.at(item.key()))))
        << item.key();
  }
}

TEST(Ema, FollowsItsFormulaAndSwapsBack) {
  toy::Net net(0);
  const torch::NoGradGuard no_grad;
  net.last->bias.fill_(1);
  Ema ema(net, 0.9);
  double expected = 1;
  for (int t = 1; t <= 300; ++t) {
    net.last->bias.fill_(t);
    ema.update();
    const double decay = std::min(0.9, (1.0 + t) / (10.0 + t));
    expected = decay * expected + (1 - decay) * t;
  }
  {
    const EmaScope scope(&ema);
    EXPECT_NEAR(net.last->bias[0].item<double>(), expected, 1e-3);
  }
  EXPECT_EQ(net.last->bias[0].item<double>(), 300);
}

TEST(Autocast, RunsMatrixProductsIn16BitsAndEnds) {
  const torch::Tensor a = torch::rand({4, 4});
  {
    const Autocast scope(torch::kCPU, apply_precision("bf16"));
    EXPECT_EQ(torch::mm(a, a).scalar_type(), torch::kBFloat16);
  }
  EXPECT_EQ(torch::mm(a, a).scalar_type(), torch::kFloat32);
  const Autocast nothing(torch::kCPU, apply_precision("fp32"));
  EXPECT_EQ(torch::mm(a, a).scalar_type(), torch::kFloat32);
  apply_precision("tf32");
  EXPECT_TRUE(at::globalContext().allowTF32CuDNN());
  apply_precision("fp32");
  EXPECT_FALSE(at::globalContext().allowTF32CuDNN());
  EXPECT_FALSE(at::globalContext().allowTF32CuBLAS());
  EXPECT_THROW(apply_precision("fp8"), c10::Error);
}

TEST(GradScaler, SkipsOverflowsAndGrowsAgain) {
  GradScaler scaler(true);
  EXPECT_EQ(scaler.scale(torch::ones({})).item<double>(), 65536);
  std::vector<torch::Tensor> gradients = {torch::full({3}, 65536.0), torch::full({2}, 32768.0)};
  EXPECT_TRUE(scaler.unscale(gradients));
  EXPECT_EQ(gradients[0][0].item<double>(), 1);
  EXPECT_EQ(gradients[1][0].item<double>(), 0.5);
  gradients[1][1] = INFINITY;
  EXPECT_FALSE(scaler.unscale(gradients));
  scaler.update(false);
  EXPECT_EQ(scaler.value(), 32768);
  for (int i = 0; i < 1999; ++i) scaler.update(true);
  GradScaler restored(true);
  restored.set_state(scaler.state());
  restored.update(true);
  EXPECT_EQ(restored.value(), 65536);
}

}  // namespace

}  // namespace serpentine
