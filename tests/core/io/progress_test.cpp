#include "core/io/progress.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <string>

namespace serpentine {
namespace {

class ProgressTest : public ::testing::Test {
 protected:
  ProgressTest() : out_(std::tmpfile()) {}
  ~ProgressTest() override { std::fclose(out_); }
  ProgressOptions options(ProgressOptions::Style style) {
    return {.out = out_, .style = style, .plain_every = 10, .clock = [this] { return now_; }};
  }
  std::string text() {
    std::string all(static_cast<size_t>(std::ftell(out_)), '\0');
    std::rewind(out_);
    EXPECT_EQ(std::fread(all.data(), 1, all.size(), out_), all.size());
    return all;
  }
  std::FILE* out_;
  double now_ = 0;
};

TEST_F(ProgressTest, APipeGetsALineEveryTenSeconds) {
  Progress progress("train", 1000, 0, options(ProgressOptions::Style::kAuto));
  for (int step = 1; step <= 1000; ++step) {
    now_ = step * 0.025;
    progress.update(step, "loss 0.5");
  }
  progress.finish("loss 0.4");
  progress.finish("again");
  EXPECT_EQ(text(),
            "train  400/1000  40%  40.0/s  left 15 s  loss 0.5\n"
            "train  800/1000  80%  40.0/s  left 5 s  loss 0.5\n"
            "train  1000/1000  100%  40.0/s  took 25 s  loss 0.4\n");
}

TEST_F(ProgressTest, ATerminalGetsOneLiveLine) {
  {
    Progress progress("train", 100, 0, options(ProgressOptions::Style::kLive));
    for (int step = 1; step <= 50; ++step) {
      now_ = step * 0.01;
      progress.update(step);
    }
  }
  const std::string all = text();
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 1);
  EXPECT_EQ(all.back(), '\n');
  const auto redraws = std::count(all.begin(), all.end(), '\r');
  EXPECT_GE(redraws, 4);
  EXPECT_LE(redraws, 6);
  EXPECT_NE(all.find("[##########..............]  43/100  43%"), std::string::npos) << all;
}

TEST_F(ProgressTest, AResumedTaskCountsOnlyItsOwnSpeed) {
  Progress progress("train", 1000, 900, options(ProgressOptions::Style::kPlain));
  now_ = 10;
  progress.update(910);
  EXPECT_EQ(text(), "train  910/1000  91%  1.0/s  left 1:30 min\n");
}

TEST(FormatSeconds, IsShort) {
  EXPECT_EQ(format_seconds(3.4), "3 s");
  EXPECT_EQ(format_seconds(200), "3:20 min");
  EXPECT_EQ(format_seconds(7500), "2:05 h");
}

}  // namespace
}  // namespace serpentine
