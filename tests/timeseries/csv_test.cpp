// Tables: what is read, and the one sentence that each kind of damage gets.
#include "core/io/csv.h"

#include <cmath>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <zlib.h>

#include "core/io/text.h"

namespace serpentine {
namespace {

std::string error_of(const std::string& text, const CsvOptions& options = {}, bool numbers = true) {
  try {
    const CsvTable table = parse_csv(text, "a.csv", options);
    for (int64_t row = 0; numbers && row < table.rows(); ++row) {
      for (int64_t column = 0; column < table.columns(); ++column) (void)table.number(row, column);
    }
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

struct Bad {
  const char* name;
  std::string text, message;
};

class BadCsv : public ::testing::TestWithParam<Bad> {};

TEST_P(BadCsv, GetsOneSentenceWithItsPlace) {
  EXPECT_EQ(error_of(GetParam().text), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    , BadCsv,
    ::testing::Values(
        Bad{"empty", "", "a.csv:1:1: the file is empty"},
        Bad{"blank", "\n \n", "a.csv:1:1: the file is empty"},
        Bad{"header_only", "a,b\n", "a.csv:1:1: the file has a header but no rows"},
        Bad{"ragged", "a,b\n1,2\n3\n4,5\n", "a.csv:3:1: the row has 1 fields, the first row has 2"},
        Bad{"too_long", "a,b\n1,2,3\n4,5\n",
            "a.csv:2:1: the row has 3 fields, the first row has 2"},
        Bad{"truncated", "a,b\n1,2\n3",
            "a.csv:3:1: the row has 1 fields, the first row has 2; the file may be truncated"},
        Bad{"not_a_number", "a,b\n1,2\n3,x4\n", "a.csv:3:3: column 'b' must be a number, got 'x4'"},
        Bad{"infinite", "a,b\n1,inf\n", "a.csv:2:3: column 'b' must be finite, got 'inf'"},
        Bad{"wrong_delimiter", "a;b\n1;2\n",
            "a.csv:1:1: the first row has one field with delimiter ','; the delimiter seems to be "
            "';'"},
        Bad{"not_utf8", "a,b\n1,\xE9\n",
            "a.csv:2:3: byte 0xE9 is not UTF-8; save the file as UTF-8"},
        Bad{"utf16",
            std::string("\xFF\xFE"
                        "a\0",
                        4),
            "a.csv:1:1: the file is UTF-16; save it as UTF-8"},
        Bad{"binary", std::string("a,b\n1,\0\n", 8),
            "a.csv:2:3: a zero byte; this is not a text file"},
        Bad{"open_quote", "a,b\n1,\"2\n", "a.csv:2:3: the quote that opens here is never closed"},
        Bad{"inner_quote", "a,b\n1,2\"3\n", "a.csv:2:4: a quote stands inside an unquoted field"},
        Bad{"after_quote", "a,b\n1,\"2\"3\n",
            "a.csv:2:6: a quoted field must end at the delimiter or the end of the line"},
        Bad{"same_name", "a,a\n1,2\n", "a.csv:1:3: the header names column 'a' twice"},
        Bad{"place_in_characters", "\xC3\xA9,b\n\"\xC3\xA9\",2\n",
            "a.csv:2:2: column '\xC3\xA9' must be a number, got '\xC3\xA9'"}),
    [](const auto& each) { return std::string(each.param.name); });

TEST(Csv, ReadsQuotesLineEndsAndMark) {
  const CsvTable table =
      parse_csv("\xEF\xBB\xBFx,\"y \"\"1\"\"\"\r\n\"a,b\",\"c\nd\"\r\ne,\r\n\r\n", "a.csv");
  EXPECT_EQ(table.names, (std::vector<std::string>{"x", "y \"1\""}));
  ASSERT_EQ(table.rows(), 2);
  EXPECT_EQ(table.cell(0, 0), "a,b");
  EXPECT_EQ(table.cell(0, 1), "c\nd");
  EXPECT_TRUE(table.missing(1, 1));
  EXPECT_EQ(table.place(1, 0), "a.csv:4:1");
}

TEST(Csv, MissingValuesAreNaN) {
  const CsvTable table = parse_csv("a,b\n,NaN\nNA,null\n n/a ,None\n+1.5e1, -2 \n", "a.csv");
  for (int64_t row = 0; row < 3; ++row) {
    for (int64_t column = 0; column < 2; ++column) {
      EXPECT_TRUE(std::isnan(table.number(row, column)));
    }
  }
  EXPECT_EQ(table.number(3, 0), 15);
  EXPECT_EQ(table.number(3, 1), -2);
}

TEST(Csv, HeaderIsFoundOrTold) {
  EXPECT_EQ(parse_csv("1,2\n3,4", "a.csv").rows(), 2);
  EXPECT_EQ(parse_csv("1,2\n3,4", "a.csv", {.header = "yes"}).names[1], "2");
  EXPECT_EQ(parse_csv("1,2\n3,4", "a.csv").names[1], "1");
  EXPECT_EQ(parse_csv("a;b\n1,5;2", "a.csv", {.delimiter = ";", .decimal = ","}).number(0, 0), 1.5);
  EXPECT_EQ(parse_csv("a\tb\n1\t2", "a.csv", {.delimiter = "tab"}).columns(), 2);
  EXPECT_EQ(parse_csv("a\n1\n\n3\n\n", "a.csv").rows(),
            3);  // a blank line of one column is a missing value
}

TEST(Csv, DatesAreNoHeader) {
  for (const char* date : {"2024-01-01 00:00:00", "2024-01-01T00:00", "01.02.2024", "1/2/24"}) {
    const CsvTable table = parse_csv(std::string(date) + ",1.5\n" + date + ",2.5\n", "a.csv", {});
    EXPECT_EQ(table.rows(), 2) << date;
  }
  EXPECT_EQ(parse_csv("day 1,load\n1,2\n", "a.csv", {}).rows(), 1);
}

TEST(Csv, AThousandsMarkIsNotADecimalPoint) {
  CsvOptions options;
  options.delimiter = ";";
  options.decimal = ",";
  EXPECT_EQ(parse_csv("a;b\n1,5;2\n", "a.csv", options).number(0, 0), 1.5);
  EXPECT_NE(error_of("a;b\n1.234;2\n", options).find("must be a number, got '1.234'"),
            std::string::npos);
}

TEST(TextFile, UnpacksGzipAndNamesDamage) {
  const auto path = (std::filesystem::path(::testing::TempDir()) / "serpentine_text.gz").string();
  const gzFile file = gzopen(path.c_str(), "wb");
  std::string text;
  for (int i = 0; i < 5000; ++i) text += std::to_string(i * 7919 % 10007) + "\n";
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
  EXPECT_EQ(read_text(path), text);

  const auto expect_error = [&](const std::string& message) {
    try {
      (void)read_text(path);
      FAIL() << "no error";
    } catch (const std::exception& error) {
      EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
    }
  };
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  expect_error("truncated");
  std::fstream(path, std::ios::in | std::ios::out | std::ios::binary)
      .seekp(200)
      .write("\xFF\xFF\xFF\xFF", 4);
  expect_error("");
  std::filesystem::remove(path);
  expect_error("cannot be opened: No such file");
}

}  // namespace
}  // namespace serpentine
