// The Mamba block: decoding equals the whole sequence, gradients, orders, precision, keys, init.
#include "core/nn/mamba.h"

#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>

#include "core/io/safetensors.h"
#include "core/ops/merge.h"
#include "support/gradcheck.h"

namespace serpentine::testing {
namespace {

using torch::Tensor;

MambaOptions small_mamba() {
  MambaOptions options;
  options.d_model = 12;
  options.d_state = 5;
  return options;
}

TEST(Mamba, StepsEqualTheWhole) {
  torch::manual_seed(1);
  Mamba mamba(small_mamba());
  const auto x = torch::randn({2, 9, 12});
  const auto whole = mamba->forward(x);
  auto state = mamba->empty_state(2);
  for (int64_t t = 0; t < 9; ++t) {
    expect_close(mamba->step(x.narrow(1, t, 1), state), whole.narrow(1, t, 1), 5e-6);
  }
}

TEST(Mamba, ChunkedPrefillEqualsTheWholeWithItsGradients) {
  torch::manual_seed(2);
  Mamba mamba(small_mamba());
  mamba->to(torch::kDouble);
  const auto input = torch::randn({2, 17, 12}, torch::kDouble),
             cotangent = torch::randn_like(input);
  const auto run = [&](const std::vector<int64_t>& sizes) {
    mamba->zero_grad();
    auto x = input.clone().requires_grad_(true);
    MixerState state;
    std::vector<Tensor> outputs;
    for (const auto& chunk : x.split_with_sizes(sizes, 1))
      outputs.push_back(mamba->prefill(chunk, state));
    const auto y = torch::cat(outputs, 1);
    torch::autograd::backward({y, state.ssm.sum(), state.conv.sum()}, {cotangent, {}, {}});
    std::vector<Tensor> all{y.detach(), state.ssm.detach(), state.conv.detach(), x.grad()};
    for (const auto& parameter : mamba->parameters()) all.push_back(parameter.grad().clone());
    return all;
  };
  const auto whole = run({17}), pieces = run({1, 2, 9, 5}),
             steps = run(std::vector<int64_t>(17, 1));
  for (size_t i = 0; i < whole.size(); ++i) {
    expect_close(pieces[i], whole[i], 1e-11, std::to_string(i));
    expect_close(steps[i], whole[i], 1e-11, std::to_string(i));
  }
}

TEST(Mamba, GradientsMatchDifferences) {
  torch::manual_seed(3);
  auto options = small_mamba();
  options.d_model = 4;
  options.d_state = 2;
  Mamba mamba(options);
  mamba->to(torch::kDouble);
  auto inputs = mamba->parameters();
  inputs.push_back(torch::randn({2, 5, 4}, torch::kDouble));
  expect_gradients(
      [&](const std::vector<Tensor>& in) { return std::vector<Tensor>{mamba->forward(in.back())}; },
      inputs, 1e-5, 1e-6);
}

TEST(Mamba, AnOrderIsAPermutationOfTheTokens) {
  torch::manual_seed(4);
  Mamba mamba(small_mamba());
  const auto x = torch::randn({2, 23, 12}), permutation = torch::randperm(23);
  const auto order = relabeled(identity_order(23), permutation);
  const auto expected =
      mamba->forward(x.index_select(1, permutation)).index_select(1, permutation.argsort());
  expect_close(mamba->forward(x, order), expected, 1e-6);
  expect_close(mamba->forward(x, reversed(identity_order(23))), mamba->forward(x.flip(1)).flip(1),
               1e-6);
}

TEST(Mamba, SequencesDoNotSeeEachOther) {
  torch::manual_seed(5);
  Mamba mamba(small_mamba());
  const auto x = torch::randn({1, 20, 12});
  const auto packed = mamba->forward(x, ragged_order(torch::tensor({0, 7, 20}, torch::kInt)));
  const auto apart =
      torch::cat({mamba->forward(x.narrow(1, 0, 7)), mamba->forward(x.narrow(1, 7, 13))}, 1);
  expect_close(packed, apart, 1e-6);
}

TEST(Mamba, ExpandNeedNotBeWhole) {
  auto options = small_mamba();
  options.d_model = 10;
  options.expand = 1.25;
  Mamba mamba(options);
  EXPECT_EQ(mamba->D.size(0), 12);
  MixerState state;
  EXPECT_EQ(mamba->prefill(torch::randn({1, 4, 10}), state).sizes(), at::IntArrayRef({1, 4, 10}));
  EXPECT_EQ(state.conv.sizes(), at::IntArrayRef({1, 12, 4}));
}

TEST(Mamba, StartsAsPublished) {
  torch::manual_seed(6);
  MambaOptions options;
  options.d_model = 64;
  options.dt_scale = 0.5;
  Mamba mamba(options);
  expect_close(mamba->A_log.exp()[3], torch::arange(1, 17, torch::kFloat), 1e-6);
  expect_equal(mamba->D.detach(), torch::ones({128}));
  const auto dt = torch::softplus(mamba->dt_proj->bias);
  EXPECT_GE(dt.min().item<double>(), 0.999e-3);
  EXPECT_LE(dt.max().item<double>(), 1.001e-1);
  EXPECT_NEAR(dt.log().mean().item<double>(), (std::log(1e-3) + std::log(1e-1)) / 2, 0.5);
  EXPECT_LE(mamba->dt_proj->weight.abs().max().item<double>(), 0.25);
  EXPECT_GT(mamba->dt_proj->weight.abs().max().item<double>(), 0.2);
}

TEST(Mamba, AutocastKeepsTheScansParametersWide) {
  torch::manual_seed(7);
  Mamba mamba(small_mamba());
  const auto x = torch::randn({2, 9, 12});
  const auto wide = mamba->forward(x);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  Trace trace;
  mamba->trace = &trace;
  const auto narrow = mamba->forward(x);
  narrow.sum().backward();
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_EQ(narrow.scalar_type(), torch::kBFloat16);
  EXPECT_EQ(trace.at("A").scalar_type(), torch::kFloat);
  EXPECT_EQ(trace.at("delta").scalar_type(), torch::kBFloat16);
  expect_close(narrow, wide, 2e-2);
  for (const auto& parameter : mamba->parameters()) {
    EXPECT_EQ(parameter.grad().scalar_type(), torch::kFloat);
  }
}

TEST(Mamba, SavesAndLoadsUnderTheReferencesKeys) {
  torch::manual_seed(8);
  auto options = small_mamba();
  options.bias = true;
  Mamba saved(options), loaded(options);
  std::set<std::string> keys;
  for (const auto& [name, tensor] : state_dict(*saved)) keys.insert(name);
  EXPECT_EQ(keys,
            (std::set<std::string>{"A_log", "D", "in_proj.weight", "in_proj.bias", "conv1d.weight",
                                   "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias",
                                   "out_proj.weight", "out_proj.bias"}));
  const std::string path = ::testing::TempDir() + "mamba_test.safetensors";
  write_safetensors(path, state_dict(*saved));
  EXPECT_TRUE(load_state_dict(*loaded, read_safetensors(path).tensors).ok());
  const auto x = torch::randn({1, 7, 12});
  expect_equal(loaded->forward(x).detach(), saved->forward(x).detach());
}

}  // namespace
}  // namespace serpentine::testing
