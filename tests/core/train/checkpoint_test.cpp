// Checkpoints that cannot be read or written end in one clear sentence, and nothing is lost.
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "core/train/checkpoint.h"
#include "run_program.h"

namespace serpentine {

namespace {

using test::fresh_folder;
using test::read_bytes;
using test::run_program;

class Checkpoint : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fresh_folder("checkpoint");
    ASSERT_EQ(run_program({TOY_TRAIN, folder_, "trainer.epochs=1"}).code, 0);
    path_ = list_checkpoints(folder_).front().path;
  }
  void write(const std::string& bytes) const { std::ofstream(path_, std::ios::binary) << bytes; }
  void expect_refusal(const std::vector<std::string>& extra,
                      const std::vector<std::string>& words) const {
    std::vector<std::string> arguments = {TOY_TRAIN, folder_, "trainer.epochs=2"};
    arguments.insert(arguments.end(), extra.begin(), extra.end());
    const test::Ended ended = run_program(arguments);
    EXPECT_EQ(ended.code, 1);
    EXPECT_NE(ended.said.find(path_), std::string::npos) << ended.said;
    for (const auto& word : words) {
      EXPECT_NE(ended.said.find(word), std::string::npos) << ended.said;
    }
  }
  std::string folder_, path_;
};

TEST_F(Checkpoint, OfAnotherModelIsRefused) {
  expect_refusal({"toy.width=12"}, {"was written by another model", "first.weight"});
}

TEST_F(Checkpoint, OfAnotherOptimiserIsRefused) {
  expect_refusal({"optimizer.type=sgd"}, {"was written with optimizer adamw, this run uses sgd"});
}

TEST_F(Checkpoint, WithoutTheAverageThatTheRunKeepsIsRefused) {
  expect_refusal({"trainer.ema=0.9"}, {"has no average of the weights"});
}

TEST_F(Checkpoint, TruncatedIsRefused) {
  const std::string bytes = read_bytes(path_);
  for (const size_t size :
       {size_t{0}, size_t{5}, size_t{200}, bytes.size() / 2, bytes.size() - 1}) {
    write(bytes.substr(0, size));
    expect_refusal({}, {});
  }
}

TEST_F(Checkpoint, WithOneBitFlippedIsRefused) {
  const std::string bytes = read_bytes(path_);
  for (const double part : {0.4, 0.6, 0.8, 0.999}) {
    std::string flipped = bytes;
    flipped[static_cast<size_t>(static_cast<double>(bytes.size()) * part)] ^= 4;
    write(flipped);
    expect_refusal({}, {"is damaged"});
  }
}

TEST_F(Checkpoint, WithAChangedPositionIsRefused) {
  std::string bytes = read_bytes(path_);
  const size_t at = bytes.find("batch_in_epoch\\\":");
  ASSERT_NE(at, std::string::npos);
  bytes[at + 17] = '3';
  write(bytes);
  expect_refusal({}, {"is damaged"});
}

TEST_F(Checkpoint, OnAFullDiskKeepsTheOldOneAndTrainingGoesOn) {
  const std::string before = read_bytes(path_);
  const test::Ended ended = run_program(
      {TOY_TRAIN, folder_, "trainer.epochs=3", "checkpoint.best=false"}, /*largest_file=*/4096);
  EXPECT_EQ(ended.code, 1) << ended.said;
  EXPECT_NE(ended.said.find("has no checkpoint on disk, training goes on"), std::string::npos)
      << ended.said;
  EXPECT_NE(ended.said.find("the newest complete one is " + path_), std::string::npos)
      << ended.said;
  EXPECT_EQ(list_checkpoints(folder_).size(), 1U);
  EXPECT_TRUE(read_bytes(path_) == before);
  EXPECT_EQ(run_program({TOY_TRAIN, folder_, "trainer.epochs=3"}).code, 0)
      << "goes on once there is room";
}

TEST_F(Checkpoint, WithoutPermissionNamesFileAndCause) {
  const std::string blocked = folder_ + "/not_a_folder";
  std::ofstream(blocked) << "x";
  const test::Ended ended = run_program({TOY_TRAIN, blocked + "/run", "trainer.epochs=1"});
  EXPECT_EQ(ended.code, 1) << ended.said;
  EXPECT_NE(ended.said.find(blocked + "/run/step_"), std::string::npos) << ended.said;
  EXPECT_NE(ended.said.find("Not a directory"), std::string::npos) << ended.said;
}

TEST_F(Checkpoint, OldOnesAreRemoved) {
  ASSERT_EQ(run_program({TOY_TRAIN, folder_, "trainer.epochs=6", "checkpoint.keep=3"}).code, 0);
  const auto left = list_checkpoints(folder_);
  ASSERT_EQ(left.size(), 3U);
  EXPECT_EQ(left.front().step, 12);
  EXPECT_EQ(left.back().step, 8);
}

TEST_F(Checkpoint, WeightsCanBeReadAlone) {
  const StateDict weights = read_checkpoint_weights(path_);
  ASSERT_EQ(weights.size(), 8U);
  EXPECT_EQ(weights.front().first.rfind("model.", 0), std::string::npos);
}

}  // namespace

}  // namespace serpentine
