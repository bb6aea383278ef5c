// A run that was killed and goes on ends with the same bytes as one that never stopped.
#include <csignal>
#include <filesystem>
#include <random>

#include <gtest/gtest.h>

#include "core/train/checkpoint.h"
#include "run_program.h"

namespace serpentine {

namespace {

using test::fresh_folder;
using test::read_bytes;
using test::run_program;

/// Everything whose state must survive: shuffling, dropout, averages, accumulation with an uneven
/// end, warm-up, plateau or cosine, momentum, clipping, evaluation by steps.
std::vector<std::vector<std::string>> recipes() {
  const std::vector<std::string> common = {"trainer.epochs=4", "trainer.evaluate_steps=5",
                                           "checkpoint.every_steps=3"};
  std::vector<std::vector<std::string>> all = {
      {"loader.batch_size=8", "trainer.accumulate=2", "trainer.ema=0.9", "trainer.clip_norm=0.5",
       "schedule.type=cosine", "schedule.warmup_steps=4", "optimizer.weight_decay=0.1",
       "loader.threads=2"},
      {"loader.batch_size=5", "optimizer.type=sgd", "optimizer.momentum=0.9", "optimizer.lr=0.05",
       "schedule.type=plateau", "schedule.patience=0", "loader.drop_last=true"},
      {"loader.batch_size=7", "optimizer.type=adam", "optimizer.amsgrad=true",
       "schedule.type=halving", "trainer.precision=bf16", "trainer.log_steps=4",
       "loader.threads=0"},
      {"loader.batch_size=6", "optimizer.type=sgd", "optimizer.lr=0.02", "schedule.type=poly",
       "trainer.precision=fp16", "trainer.clip_value=0.1", "loader.threads=0"}};
  for (auto& recipe : all) recipe.insert(recipe.end(), common.begin(), common.end());
  return all;
}

std::vector<std::string> command(const std::string& folder, std::vector<std::string> recipe) {
  recipe.insert(recipe.begin(), {TOY_TRAIN, folder});
  return recipe;
}

void expect_same_end(const std::string& whole, const std::string& broken) {
  const auto a = list_checkpoints(whole), b = list_checkpoints(broken);
  ASSERT_FALSE(a.empty());
  ASSERT_FALSE(b.empty());
  EXPECT_EQ(a.front().step, b.front().step);
  EXPECT_TRUE(read_bytes(a.front().path) == read_bytes(b.front().path))
      << "the last checkpoints differ";
  EXPECT_TRUE(read_bytes(whole + "/best.safetensors") == read_bytes(broken + "/best.safetensors"));
}

class Resume : public ::testing::TestWithParam<size_t> {};

TEST_P(Resume, AfterKillsAtRandomStepsIsBitIdentical) {
  const auto recipe = recipes()[GetParam()];
  const std::string whole = fresh_folder("whole"), broken = fresh_folder("broken");
  ASSERT_EQ(run_program(command(whole, recipe)).code, 0);
  const int64_t last = list_checkpoints(whole).front().step;
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  int64_t step = 0;
  for (int kill = 0; kill < 4; ++kill) {
    step = std::uniform_int_distribution<int64_t>(step + 1,
                                                  std::max(step + 1, last - 4 + kill))(random);
    if (step >= last) break;
    SCOPED_TRACE("killed at step " + std::to_string(step));
    auto killed = command(broken, recipe);
    killed.insert(killed.end(), {"toy.end_step=" + std::to_string(step), "toy.end_signal=9"});
    ASSERT_EQ(run_program(killed).code, 128 + SIGKILL);
  }
  ASSERT_EQ(run_program(command(broken, recipe)).code, 0);
  expect_same_end(whole, broken);
}

TEST_P(Resume, AfterATerminationSignalIsBitIdentical) {
  const auto recipe = recipes()[GetParam()];
  const std::string whole = fresh_folder("whole"), broken = fresh_folder("broken");
  ASSERT_EQ(run_program(command(whole, recipe)).code, 0);
  for (const int signal : {SIGTERM, SIGINT}) {
    auto stopped = command(broken, recipe);
    const int64_t step = signal == SIGTERM ? 4 : 10;
    stopped.insert(stopped.end(), {"toy.end_step=" + std::to_string(step),
                                   "toy.end_signal=" + std::to_string(signal)});
    const test::Ended ended = run_program(stopped);
    EXPECT_EQ(ended.code, 128 + signal) << ended.said;
    EXPECT_NE(ended.said.find("Go on with: toy_train"), std::string::npos) << ended.said;
    ASSERT_FALSE(list_checkpoints(broken).empty());
    EXPECT_NE(ended.said.find(list_checkpoints(broken).front().path), std::string::npos)
        << ended.said;
    EXPECT_LE(list_checkpoints(broken).front().step, step + 1);
    EXPECT_GE(list_checkpoints(broken).front().step, step);
  }
  ASSERT_EQ(run_program(command(broken, recipe)).code, 0);
  expect_same_end(whole, broken);
}

std::string recipe_name(const ::testing::TestParamInfo<size_t>& recipe) {
  const char* names[] = {"adamw_cosine_ema", "sgd_plateau", "adam_halving_bf16", "sgd_poly_fp16"};
  return names[recipe.param];
}

INSTANTIATE_TEST_SUITE_P(Recipes, Resume, ::testing::Values(0, 1, 2, 3), recipe_name);

TEST(Patience, IsNotForgottenByAResumedRun) {
  // steps so small that every evaluation equals the first: five of them, the last four without gain
  const std::vector<std::string> recipe = {"trainer.epochs=20",        "trainer.patience=4",
                                           "loader.batch_size=8",      "optimizer.type=sgd",
                                           "optimizer.lr=1e-12",       "optimizer.momentum=0",
                                           "optimizer.weight_decay=0", "checkpoint.every_steps=2"};
  const std::string whole = fresh_folder("whole"), broken = fresh_folder("broken");
  ASSERT_EQ(run_program(command(whole, recipe)).code, 0);
  EXPECT_EQ(list_checkpoints(whole).front().step, 5 * 7);
  auto killed = command(broken, recipe);
  killed.insert(killed.end(), {"toy.end_step=25", "toy.end_signal=9"});
  ASSERT_EQ(run_program(killed).code, 128 + SIGKILL);
  ASSERT_EQ(run_program(command(broken, recipe)).code, 0);
  expect_same_end(whole, broken);
}

}  // namespace

}  // namespace serpentine
