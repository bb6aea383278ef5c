// The residual block, drop path, and which parameters are not decayed.
#include "core/nn/block.h"

#include <gtest/gtest.h>

#include "core/nn/drop_path.h"
#include "core/nn/mamba.h"
#include "core/nn/parameter_groups.h"
#include "support/close.h"

namespace serpentine::testing {
namespace {

Block small_block(BlockOptions options = {}) {
  options.d_model = 12;
  MambaOptions mamba;
  mamba.d_model = 12;
  mamba.d_state = 4;
  return Block(options, Mamba(mamba).ptr());
}

TEST(Block, AddsThenNormalisesThenMixes) {
  torch::manual_seed(1);
  auto block = small_block();
  const auto hidden = torch::randn({2, 5, 12}), residual = torch::randn({2, 5, 12});
  const auto order = identity_order(5);
  const auto out = block->forward({hidden, residual}, order);
  expect_equal(out.residual.detach(), hidden + residual);
  expect_equal(out.hidden, block->mixer->forward(block->norm(hidden + residual), order));
  const auto first = block->forward({hidden, {}}, order);
  expect_equal(first.residual.detach(), hidden);
}

TEST(Block, RunsTheMlpBehindTheMixer) {
  torch::manual_seed(2);
  BlockOptions options;
  options.d_intermediate = 100;  // rounded up to 128
  auto block = small_block(options);
  EXPECT_EQ(block->mlp->fc1->weight.sizes(), at::IntArrayRef({256, 12}));
  const auto hidden = torch::randn({2, 5, 12}), residual = torch::randn({2, 5, 12});
  const auto order = identity_order(5);
  const auto mixed = block->mixer->forward(block->norm(hidden + residual), order);
  const auto out = block->forward({hidden, residual}, order);
  expect_equal(out.residual, mixed + (hidden + residual));
  expect_equal(out.hidden, block->mlp(block->norm2(out.residual)));
}

TEST(Block, StepsFollowTheWhole) {
  torch::manual_seed(3);
  auto block = small_block();
  const auto hidden = torch::randn({2, 5, 12});
  const auto whole = block->forward({hidden, {}}, identity_order(5)).hidden;
  MixerState state;
  expect_close(block->prefill({hidden.narrow(1, 0, 4), {}}, state).hidden, whole.narrow(1, 0, 4),
               5e-6);
  expect_close(block->step({hidden.narrow(1, 4, 1), {}}, state).hidden, whole.narrow(1, 4, 1),
               5e-6);
}

TEST(DropPath, DropsWholeSamplesAndKeepsTheMean) {
  torch::manual_seed(4);
  const auto x = torch::ones({4000, 2, 3});
  const auto dropped = drop_path(x, 0.25, true);
  const auto per_sample = dropped.flatten(1);
  expect_equal(std::get<0>(per_sample.min(1)), std::get<0>(per_sample.max(1)));
  EXPECT_NEAR(dropped.mean().item<double>(), 1, 0.04);
  EXPECT_NEAR((per_sample.select(1, 0) == 0).to(torch::kFloat).mean().item<double>(), 0.25, 0.03);
  expect_equal(drop_path(x, 0.25, false), x);
  EXPECT_THROW(drop_path(x, 1.0, true), c10::Error);
}

TEST(ParameterGroups, SparesTheRecurrenceNormsAndBiases) {
  auto block = small_block();
  const auto groups = parameter_groups(*block);
  EXPECT_EQ(
      std::set<std::string>(groups.decayed.begin(), groups.decayed.end()),
      (std::set<std::string>{"mixer.in_proj.weight", "mixer.conv1d.weight", "mixer.x_proj.weight",
                             "mixer.dt_proj.weight", "mixer.out_proj.weight"}));
  EXPECT_EQ(std::set<std::string>(groups.not_decayed.begin(), groups.not_decayed.end()),
            (std::set<std::string>{"norm.weight", "mixer.A_log", "mixer.D", "mixer.conv1d.bias",
                                   "mixer.dt_proj.bias"}));
}

}  // namespace
}  // namespace serpentine::testing
