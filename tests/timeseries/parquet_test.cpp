// Series from Parquet files; without the feature, the sentence that says what to do.
#include <cmath>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "core/io/csv.h"
#include "core/io/parquet.h"
#include "timeseries/series.h"

namespace serpentine {
namespace {

std::string data_file(const std::string& name) {
  return std::string(SERPENTINE_SOURCE_DIR) + "/tests/timeseries/data/" + name;
}

// what reading says, behind the file's path
std::string refusal_of(const std::string& path, const FileOptions& options = {}) {
  try {
    (void)read_series(path, options);
  } catch (const c10::Error& error) {
    return std::string(error.what_without_backtrace()).substr(path.size());
  } catch (const std::exception& error) {
    return std::string(error.what()).substr(path.size());
  }
  return "no error";
}

/// Made by pyarrow: a timestamp in nanoseconds, float64 with a null, int32, bool, decimal, a
/// dictionary of texts, int8, and a list that no series can hold.
class Parquet : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!parquet_available()) GTEST_SKIP() << "built without Parquet";
  }
};

TEST(ParquetFile, IsKnownByItsFirstBytes) {
  const auto path = (std::filesystem::path(::testing::TempDir()) / "serpentine_par1.csv").string();
  std::filesystem::copy_file(data_file("zone.parquet"), path,
                             std::filesystem::copy_options::overwrite_existing);
  if (parquet_available()) {
    EXPECT_EQ(read_series(path).rows(), 3);
  } else {
    const std::string said = refusal_of(path);
    EXPECT_EQ(said.find(": this is a Parquet file, and this program is built without Parquet. "),
              0);
    EXPECT_NE(said.find("SERPENTINE_PARQUET=ON ./serpent build"), std::string::npos);
  }
  EXPECT_EQ(refusal_of(path, {.format = "csv"}).find(": this is a Parquet file, not text;"), 0);
  std::filesystem::remove(path);
}

TEST_F(Parquet, ReadsNumbersTimesAndCategories) {
  FileOptions options;
  options.categorical = {"site", "kind"};
  const Series series = read_series(data_file("table.parquet"), options);
  EXPECT_EQ(series.columns,
            (std::vector<std::string>{"load", "heat", "on", "price", "site", "kind"}));
  ASSERT_EQ(series.rows(), 6);
  EXPECT_EQ(series.label(0), "2024-01-01 00:00:00");
  EXPECT_EQ(series.label(6), "2024-01-01 06:00:00");
  EXPECT_EQ(series.frequency.text(), "1h");
  const auto at = [&](int64_t row, int64_t column) {
    return series.values[row][column].item<double>();
  };
  EXPECT_EQ(at(1, 0), 2.5);
  EXPECT_TRUE(std::isnan(at(2, 0)));  // null
  EXPECT_EQ(at(4, 0), 5.5);           // of the second row group
  EXPECT_TRUE(std::isnan(at(5, 0)));  // NaN
  EXPECT_EQ(at(5, 1), 15);
  EXPECT_EQ(at(0, 2), 1);
  EXPECT_TRUE(std::isnan(at(5, 2)));
  EXPECT_EQ(at(3, 3), 1.25);
  EXPECT_EQ(series.texts.at("site"),
            (std::vector<std::string>{"north", "south", "north", "", "south", "north"}));
  EXPECT_EQ(series.texts.at("kind"), (std::vector<std::string>{"1", "2", "1", "2", "1", "2"}));
}

TEST_F(Parquet, TakesTheIndexOfPandasInUtc) {
  const Series series = read_series(data_file("zone.parquet"));
  EXPECT_EQ(series.columns, std::vector<std::string>{"load"});
  EXPECT_EQ(series.label(0), "2024-01-01 00:00:00");  // 01:00 in Berlin
  EXPECT_TRUE(series.regular);
  EXPECT_TRUE(
      read_series(data_file("zone.parquet"), {.date = "none", .ignore = {"__index_level_0__"}})
          .times.empty());
}

TEST_F(Parquet, NamesWhatIsWrong) {
  const std::string table = data_file("table.parquet");
  EXPECT_EQ(refusal_of(table).find(": column 'site' must be numbers, it holds texts;"), 0);
  EXPECT_EQ(refusal_of(table, {.date = "dat"}),
            ": there is no date column 'dat'; did you mean 'date'?");
  EXPECT_EQ(refusal_of(table, {.date = "heat"}),
            ": column 'heat' must hold dates, it holds numbers; data.date names another");
  EXPECT_EQ(
      refusal_of(table, {.date = "site"}),
      ": row 1 of column 'site': the date 'north' has no known form; set data.date_format, as "
      "in %d/%m/%Y %H:%M");
}

TEST_F(Parquet, SurvivesDamage) {
  std::ifstream file(data_file("table.parquet"), std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(file), {}};
  const auto path =
      (std::filesystem::path(::testing::TempDir()) / "serpentine_bad.parquet").string();
  FileOptions options;
  options.categorical = {"site"};
  int refused = 0;
  for (size_t cut = 4; cut < whole.size(); cut += 97) {
    std::ofstream(path, std::ios::binary) << whole.substr(0, cut);
    refused += refusal_of(path, options) != "no error";
  }
  EXPECT_EQ(refused, static_cast<int>((whole.size() - 4 + 96) / 97));

  // a flipped byte is refused or read, but ends nothing
  for (size_t at = 4; at + 8 < whole.size(); at += 53) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ 0x41);
    std::ofstream(path, std::ios::binary) << flipped;
    (void)refusal_of(path, options);
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace serpentine
