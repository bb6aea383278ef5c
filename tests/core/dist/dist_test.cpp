// Several processes with Gloo end where one process with the same global batch ends.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include <nlohmann/json.hpp>

#include "core/dist/process_group.h"
#include "core/io/safetensors.h"
#include "core/train/checkpoint.h"
#include "core/train/run_program.h"
#include "core/train/train_state.h"

namespace serpentine {

namespace {

using test::Ended;
using test::fresh_folder;
using test::run_program;

// fp32 sums in another order; the worst seen is 5.6e-7 relative to the largest weight
constexpr double kTolerance = 2e-6;

std::vector<std::string> recipe(const std::string& folder) {
  return {TOY_TRAIN,           folder,
          "toy.dropout=0",     "trainer.epochs=4",
          "optimizer.lr=0.01", "trainer.clip_norm=1"};
}

void expect_same(const std::string& one, const std::string& many) {
  ASSERT_FALSE(list_checkpoints(one).empty());
  ASSERT_FALSE(list_checkpoints(many).empty());
  ASSERT_EQ(list_checkpoints(one).front().step, list_checkpoints(many).front().step);
  const StateDict a = read_checkpoint_weights(list_checkpoints(one).front().path);
  const StateDict b = read_checkpoint_weights(list_checkpoints(many).front().path);
  ASSERT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].first, b[i].first);
    const double difference = (a[i].second - b[i].second).abs().max().item<double>();
    worst = std::max(worst, difference / a[i].second.abs().max().item<double>());
  }
  EXPECT_LT(worst, kTolerance);

  // metrics are sums over the ranks: the best of them, and when it was, are those of one process
  const auto state = [](const std::string& folder) {
    const auto file = read_safetensors(list_checkpoints(folder).front().path);
    const auto training = nlohmann::json::parse(file.metadata.at("training"));
    return train_state_from_json(training.at("state"));
  };
  const TrainState of_one = state(one), of_many = state(many);
  EXPECT_NEAR(of_many.best, of_one.best, 1e-5 * of_one.best);
  EXPECT_EQ(of_many.best_epoch, of_one.best_epoch);
  EXPECT_EQ(of_many.best_step, of_one.best_step);
  std::printf("worst relative difference %.2g\n", worst);
}

class Processes : public ::testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(Processes, EndWhereOneEnds) {
  const auto [nproc, batch, accumulate] = GetParam();
  const std::string one = fresh_folder("one"), many = fresh_folder("many");
  auto command = recipe(one);
  command.insert(command.end(), {"loader.batch_size=" + std::to_string(batch),
                                 "trainer.accumulate=" + std::to_string(accumulate),
                                 "optimizer.weight_decay=0.1"});
  ASSERT_EQ(run_program(command).code, 0);
  command[1] = many;
  command.push_back("toy.nproc=" + std::to_string(nproc));
  const Ended ended = run_program(command);
  ASSERT_EQ(ended.code, 0) << ended.said;
  expect_same(one, many);
}

std::string world_name(const ::testing::TestParamInfo<std::tuple<int, int, int>>& world) {
  const auto [nproc, batch, accumulate] = world.param;
  return "n" + std::to_string(nproc) + "_batch" + std::to_string(batch) + "_accumulate" +
         std::to_string(accumulate);
}

// 53 examples: the last batch has 5, 4 or 1 examples, fewer than ranks in the last case
INSTANTIATE_TEST_SUITE_P(Worlds, Processes,
                         ::testing::Values(std::tuple(2, 8, 1), std::tuple(2, 7, 2),
                                           std::tuple(3, 4, 1)),
                         world_name);

TEST(ProcessGroup, GoesOnAfterAKillBitIdentically) {
  const std::string whole = fresh_folder("whole"), broken = fresh_folder("broken");
  const auto command = [](const std::string& folder) {
    auto all = recipe(folder);
    all.insert(all.end(),
               {"toy.nproc=2", "toy.dropout=0.3", "trainer.ema=0.9", "checkpoint.every_steps=2"});
    return all;
  };
  ASSERT_EQ(run_program(command(whole)).code, 0);
  auto killed = command(broken);
  killed.insert(killed.end(), {"toy.end_step=3", "toy.end_signal=9", "toy.end_rank=1"});
  EXPECT_NE(run_program(killed).code, 0);
  ASSERT_EQ(run_program(command(broken)).code, 0);
  EXPECT_TRUE(test::read_bytes(list_checkpoints(whole).front().path) ==
              test::read_bytes(list_checkpoints(broken).front().path));
}

TEST(ProcessGroup, AllStopWhenOneIsAskedTo) {
  const std::string folder = fresh_folder("asked");
  auto command = recipe(folder);
  command.insert(command.end(),
                 {"toy.nproc=2", "toy.end_step=3", "toy.end_signal=15", "toy.end_rank=1"});
  const Ended ended = run_program(command);
  EXPECT_EQ(ended.code, 128 + SIGTERM) << ended.said;
  ASSERT_FALSE(list_checkpoints(folder).empty());
  EXPECT_EQ(list_checkpoints(folder).front().step, 4);
}

/// Two ranks without the launcher, so that nothing but the group itself notices a death.
Ended two_ranks(int end_signal, double timeout) {
  const std::string folder = fresh_folder("two");
  const std::string shell =
      "for r in 0 1; do RANK=$r WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29871 " +
      std::string(TOY_TRAIN) + " " + folder + " trainer.epochs=50 toy.end_step=3 toy.end_rank=1" +
      " toy.end_signal=" + std::to_string(end_signal) + " toy.timeout=" + std::to_string(timeout) +
      " & p=\"$p $!\"; done; set -- $p; wait $1; " + "c=$?; kill -9 $2 2>/dev/null; exit $c";
  return run_program({"sh", "-c", shell});
}

TEST(ProcessGroup, SaysThatARankDied) {
  const Ended ended = two_ranks(SIGKILL, 60);
  EXPECT_EQ(ended.code, 1) << ended.said;
  EXPECT_NE(ended.said.find("rank 0 of 2 lost the others"), std::string::npos) << ended.said;
}

TEST(ProcessGroup, SaysThatARankIsSilent) {
  const auto start = std::chrono::steady_clock::now();
  const Ended ended = two_ranks(SIGSTOP, 4);
  EXPECT_EQ(ended.code, 1) << ended.said;
  EXPECT_NE(ended.said.find("silent for 4 s"), std::string::npos) << ended.said;
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

TEST(World, ReadsTorchrunThenSlurmAndRefusesHalfASet) {
  const auto set = [](const char* name, const char* value) {
    value ? setenv(name, value, 1) : unsetenv(name);
  };
  EXPECT_EQ(world_from_environment().size, 1);
  set("SLURM_PROCID", "3"), set("SLURM_NTASKS", "8"), set("SLURM_STEP_ID", "0"),
      set("SLURM_LOCALID", "1");
  set("SLURM_STEP_NODELIST", "gpu[03-07,11]"), set("SLURM_JOB_ID", "123456");
  const World slurm = world_from_environment();
  EXPECT_EQ(slurm.rank, 3);
  EXPECT_EQ(slurm.size, 8);
  EXPECT_EQ(slurm.local_rank, 1);
  EXPECT_EQ(slurm.address, "gpu03");
  EXPECT_EQ(slurm.port, 20000 + 123456 % 20000);
  set("WORLD_SIZE", "2"), set("RANK", "1");
  EXPECT_THROW(world_from_environment(), c10::Error) << "no address";
  set("MASTER_ADDR", "host7"), set("MASTER_PORT", "4000");
  EXPECT_EQ(world_from_environment().address, "host7");
  set("RANK", "2");
  EXPECT_THROW(world_from_environment(), c10::Error);
  set("RANK", "one");
  EXPECT_THROW(world_from_environment(), c10::Error);
  for (const char* name :
       {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID", "SLURM_NTASKS",
        "SLURM_STEP_ID", "SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID"}) {
    set(name, nullptr);
  }
}

TEST(Torchrun, EndsWhereOneEnds) {
  const std::string torchrun = TORCHRUN;
  if (torchrun.empty()) GTEST_SKIP() << "the Python of this build has no torchrun beside it";
  const std::string one = fresh_folder("one"), many = fresh_folder("many");
  ASSERT_EQ(run_program(recipe(one)).code, 0);
  std::vector<std::string> command = {torchrun, "--no-python",   "--nproc-per-node",
                                      "2",      "--master-port", "29873"};
  for (const auto& word : recipe(many)) command.push_back(word);
  const Ended ended = run_program(command);
  ASSERT_EQ(ended.code, 0) << ended.said;
  expect_same(one, many);
}

}  // namespace

}  // namespace serpentine
