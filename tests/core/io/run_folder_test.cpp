#include "core/io/run_folder.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/io/files.h"
#include "core/io/tensorboard.h"

namespace serpentine {
namespace {

class RunFolderTest : public FolderTest {
 protected:
  /// metrics.csv without the column of times.
  static std::string rows(const RunFolder& folder) {
    std::istringstream file(read_bytes(folder.path() + "/metrics.csv"));
    std::string all;
    for (std::string line; std::getline(file, line);) {
      const size_t first = line.find(',');
      const size_t second = line.find(',', first + 1);
      all +=
          line.substr(0, first) + (second == std::string::npos ? "" : line.substr(second)) + "\n";
    }
    return all;
  }
};

TEST_F(RunFolderTest, TwoRunsOfOneSecondGetTwoFolders) {
  const auto first = RunFolder::create(at("runs"), "demo");
  const auto second = RunFolder::create(at("runs"), "demo");
  EXPECT_NE(first.path(), second.path());
  EXPECT_TRUE(std::filesystem::is_directory(second.checkpoints()));
  EXPECT_TRUE(std::filesystem::is_directory(second.plots()));
}

TEST_F(RunFolderTest, ANewMetricBecomesAColumn) {
  auto folder = RunFolder::open(at("run"));
  folder.log(1, {{"loss", 0.5}});
  folder.log(2, {{"loss", 0.25}, {"val/mse", 3}});
  folder.log(3, {{"loss", NAN}});
  EXPECT_EQ(rows(folder), "step,loss,val/mse\n1,0.5,\n2,0.25,3\n3,nan,\n");
  std::istringstream lines(read_bytes(at("run/metrics.jsonl")));
  std::vector<nlohmann::json> objects;
  for (std::string line; std::getline(lines, line);) objects.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(objects.size(), 3U);
  EXPECT_EQ(objects[1]["val/mse"], 3);
  EXPECT_EQ(objects[1]["step"], 2);
  EXPECT_TRUE(objects[2]["loss"].is_null());
}

TEST_F(RunFolderTest, ResumingRemovesWhatWillBeWrittenAgain) {
  {
    auto folder = RunFolder::open(at("run"));
    for (int step = 1; step <= 5; ++step) folder.log(step, {{"loss", 1.0 / step}});
  }
  // the run was killed while it wrote its last row
  std::ofstream(at("run/metrics.csv"), std::ios::app) << "6,12";
  std::ofstream(at("run/metrics.jsonl"), std::ios::app) << "{\"step\":6,";
  auto folder = RunFolder::open(at("run"), 3);
  folder.log(4, {{"loss", 9}});
  EXPECT_EQ(rows(folder), "step,loss\n1,1\n2,0.5\n3,0.333333333\n4,9\n");
  const std::string lines = read_bytes(at("run/metrics.jsonl"));
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 4);
}

TEST_F(RunFolderTest, RecordsEveryCommand) {
  const auto folder = RunFolder::open(at("run"));
  folder.write_environment({"serpentine", "train", "a.yaml"});
  folder.write_environment({"serpentine", "train", "--resume", "caf\xe9"});
  const auto all = nlohmann::json::parse(read_bytes(at("run/environment.json")));
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0]["command"], nlohmann::json({"serpentine", "train", "a.yaml"}));
  EXPECT_FALSE(all[1]["versions"]["torch"].get<std::string>().empty());
  EXPECT_FALSE(all[1]["versions"]["serpentine"].get<std::string>().empty());
}

TEST_F(RunFolderTest, AFileInTheWayIsOneSentence) {
  write("run", "x");
  expect_sentence(error_of([&] { RunFolder::open(at("run")); }), at("run"));
}

TEST(TensorBoard, ChecksumIsCastagnolis) {
  // RFC 3720, appendix B.4: 32 bytes of zeros give 0x8A9136AA
  const uint32_t crc = 0x8A9136AAU;
  EXPECT_EQ(masked_crc32c(std::string(32, '\0')), (crc >> 15 | crc << 17) + 0xA282EAD8U);
}

}  // namespace
}  // namespace serpentine
