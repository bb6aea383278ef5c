// Series: dates, steps, roles, scaling and splits.
#include <cmath>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "timeseries/series_source.h"

namespace serpentine {
namespace {

class SeriesFile : public ::testing::Test {
 protected:
  std::string write(const std::string& text) const {
    std::ofstream(path_) << text;
    return path_;
  }
  std::string error_of(const std::string& text, const FileOptions& options = {}) const {
    try {
      (void)read_series(write(text), options);
    } catch (const std::exception& error) {
      return std::string(error.what()).substr(path_.size());
    }
    return "no error";
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::string path_ = (std::filesystem::path(::testing::TempDir()) /
                       (std::string("serpentine_series_") +
                        ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".csv"))
                          .string();
};

TEST_F(SeriesFile, FindsDatesAndTheirStep) {
  for (const char* text : {"date,a\n2020-01-31,1\n2020-02-01,2\n2020-02-02,3\n",
                           "a,Timestamp\n1,2020/01/31\n2,2020/02/01\n3,2020/02/02\n",
                           "d,a\n2020-01-31 00:00,1\n2020-02-01 00:00,2\n2020-02-02 00:00,3\n"}) {
    const Series series = read_series(write(text));
    EXPECT_EQ(series.frequency.text(), "1d");
    EXPECT_EQ(series.columns, std::vector<std::string>{"a"});
    EXPECT_EQ(series.label(3), "2020-02-03 00:00:00");
    EXPECT_TRUE(series.regular);
  }
  EXPECT_FALSE(
      read_series(write("date,a\n2020-01-01,1\n2020-01-02,2\n2020-01-05,3\n2020-01-06,3\n"))
          .regular);
  const Series months = read_series(write("date,a\n2020-01-01,1\n2020-02-01,2\n2020-03-01,3\n"));
  EXPECT_EQ(months.frequency.text(), "1M");
  EXPECT_TRUE(months.regular);
  EXPECT_EQ(months.label(4), "2020-05-01 00:00:00");
  const Series european = read_series(write("d,a\n31.12.2020 23:00,1\n01.01.2021 00:00,2\n"),
                                      {.date = "d", .date_format = "%d.%m.%Y %H:%M"});
  EXPECT_EQ(european.label(2), "2021-01-01 01:00:00");
}

TEST_F(SeriesFile, MakesDuplicatesOneRow) {
  const std::string text =
      "date,a,b\n2020-01-01,1,x\n2020-01-02,2,x\n2020-01-02,4,y\n2020-01-03,5,z\n";
  const auto rows = [&](const std::string& how) {
    const Series series =
        read_series(write(text), {.duplicates = how, .categorical = std::vector<std::string>{"b"}});
    std::string all;
    for (int64_t i = 0; i < series.rows(); ++i) {
      all += series.label(i).substr(8, 2) + ":" + std::to_string(series.values[i][0].item<int>()) +
             series.texts.at("b")[i] + " ";
    }
    return all + (series.regular ? "regular" : "irregular");
  };
  EXPECT_EQ(rows("first"), "01:1x 02:2x 03:5z regular");
  EXPECT_EQ(rows("last"), "01:1x 02:4y 03:5z regular");
  EXPECT_EQ(rows("mean"), "01:1x 02:3x 03:5z regular");
  EXPECT_EQ(rows("keep"), "01:1x 02:2x 02:4y 03:5z irregular");
}

TEST_F(SeriesFile, NamesThePlaceOfBadDates) {
  EXPECT_EQ(error_of("date,a\n2020-01-01,1\n2020-01-01,2\n"),
            ":3:1: the timestamp '2020-01-01' repeats the row above it (2020-01-01 00:00:00); rows "
            "must be in time order, or set data.duplicates to keep, first, last or mean");
  EXPECT_EQ(error_of("date,a\n2020-01-02,1\n2020-01-01,2\n"),
            ":3:1: the timestamp '2020-01-01' is before the row above it (2020-01-02 00:00:00); "
            "rows must be in time order");
  EXPECT_EQ(error_of("date,a\n2020-01-02,1\n2020-13-01,2\n"),
            ":3:1: the date '2020-13-01' does not have the form %F");
  EXPECT_EQ(error_of("date,a\n7/1/2020 0:00,1\n"),
            ":2:1: the date '7/1/2020 0:00' has no known form; set data.date_format, as in "
            "%d/%m/%Y %H:%M");
  EXPECT_EQ(error_of("when,a\n01.04.2024 00:00,1\n"),
            ":2:1: the date '01.04.2024 00:00' has no known form; set data.date_format, as in "
            "%d/%m/%Y %H:%M");
  EXPECT_EQ(error_of("date,a\n2020-01-01,1\n", {.date = "dat"}),
            ":1:1: there is no date column 'dat'; did you mean 'date'?");
  EXPECT_EQ(error_of("date,load\n2020-01-01,1\n", {.only = {"laod"}}),
            ": there is no column 'laod'; did you mean 'load'?");
}

TEST_F(SeriesFile, FillsGaps) {
  const Series series = read_series(write("date,a\n2020-01-01,1\n2020-01-02,2\n2020-01-05,3\n"),
                                    {.frequency = "1d", .fill_gaps = true});
  EXPECT_EQ(series.rows(), 5);
  EXPECT_TRUE(series.regular);
  EXPECT_TRUE(std::isnan(series.values[3][0].item<double>()));
  EXPECT_EQ(series.values[4][0].item<double>(), 3);
}

TEST(Frequency, ReadsWritesAndCounts) {
  for (const char* text : {"1h", "15min", "30s", "1d", "1w", "1M", "1y"}) {
    EXPECT_EQ(parse_frequency(text).text(), text);
  }
  EXPECT_EQ(parse_frequency("15min").period(), 96);
  EXPECT_EQ(parse_frequency("1d").period(), 7);
  EXPECT_EQ(parse_frequency("1M").period(), 12);
  EXPECT_THROW((void)parse_frequency("3x"), std::runtime_error);
  EXPECT_EQ(format_time(parse_frequency("1M").after(DateParser().parse("2020-01-31").value(), 1)),
            "2020-02-29 00:00:00");
}

Series ramp(int64_t rows, std::vector<std::string> columns) {
  const auto count = static_cast<int64_t>(columns.size());
  return make_series(torch::arange(rows * count, torch::kFloat64).view({rows, count}),
                     std::move(columns));
}

SeriesOptions small() {
  SeriesOptions options;
  options.seq_len = 4;
  options.pred_len = 2;
  return options;
}

TEST(SeriesSource, ScalesByTheTrainRowsOnly) {
  Series series = ramp(40, {"a", "b"});
  series.values.select(1, 1).fill_(3);
  series.values.slice(0, 28).select(1, 0).fill_(1e6);  // 70 % train
  const SeriesSource source(small(), series);
  EXPECT_DOUBLE_EQ(source.schema().mean[0], 27);
  EXPECT_NEAR(source.schema().std[0], 2 * std::sqrt((28.0 * 28 - 1) / 12), 1e-9);
  EXPECT_EQ(source.schema().std[1], 1);  // constant
  EXPECT_EQ(source.schema().mean[1], 3);
  ASSERT_EQ(source.notes().size(), 1u);
  EXPECT_NE(source.notes()[0].find("'b' is constant"), std::string::npos);
}

TEST(SeriesSource, WindowsHoldTheRightRows) {
  SeriesOptions options = small();
  options.scale = false;
  const SeriesSource source(options, ramp(40, {"a"}));
  const auto train = source.part(Part::kTrain), validation = source.part(Part::kValidation),
             test = source.part(Part::kTest);
  EXPECT_EQ(train->size(), 28 - 6 + 1);
  EXPECT_EQ(validation->size(), 4 + 4 - 6 + 1);
  EXPECT_EQ(test->size(), 8 + 4 - 6 + 1);
  EXPECT_EQ(test->get(0).input[0][0].item<float>(), 28);  // seq_len before row 32
  EXPECT_EQ(test->get(0).target[0][0].item<float>(), 32);
  EXPECT_EQ(test->get(test->size() - 1).target[1][0].item<float>(), 39);
  const Batch both = train->get_batch({3, 0});
  EXPECT_TRUE(both.input[0].equal(train->get(3).input));
  EXPECT_TRUE(both.target[1].equal(train->get(0).target));
  EXPECT_THROW((void)train->get(23), std::out_of_range);
}

TEST(SeriesSource, RolesBecomeTensors) {
  Series series = ramp(60, {"y", "load", "plan", "site", "day"});
  series.values.select(1, 4).fill_(std::nan(""));
  for (int64_t row = 0; row < 60; ++row)
    series.texts["day"].push_back(row % 3 == 0 ? "holiday" : "work");
  SeriesOptions options = small();
  options.targets = {"y"};
  options.past = {"load"};
  options.future = {"plan", "day"};
  options.statics = {"site"};
  options.file.categorical = {"day"};
  SeriesSource source(options, series);
  const Batch batch = source.part(Part::kTrain)->get_batch({0, 1});
  EXPECT_EQ(batch.input.sizes(), (at::IntArrayRef{2, 4, 2}));
  EXPECT_EQ(batch.target.sizes(), (at::IntArrayRef{2, 2, 1}));
  EXPECT_EQ(batch.get("future").sizes(), (at::IntArrayRef{2, 6, 3}));  // plan and two levels
  EXPECT_EQ(batch.get("extra").sizes(), (at::IntArrayRef{2, 4, 1}));
  EXPECT_FALSE(batch.get("mask").defined());
  Config model = Config::parse("type: s_mamba");
  source.fill_model(model, Config::parse("quantiles: [0.1, 0.9]"));
  const SeriesSchema again =
      SeriesSchema::from_json(nlohmann::json::parse(source.description().dump()));
  EXPECT_EQ(again.to_json(), source.description());
  EXPECT_EQ(again.quantiles, (std::vector<double>{0.1, 0.9}));
  auto damaged = source.description();
  damaged["mean"] = std::vector<double>{1};
  EXPECT_THROW((void)SeriesSchema::from_json(damaged), std::runtime_error);
}

TEST(SeriesSource, MissingValuesAreMaskedAndElapsedTimeTold) {
  Series series = ramp(60, {"a", "b"});
  series.values[5][1] = std::nan("");
  series.times.clear();
  for (int64_t row = 0; row < 60; ++row)
    series.times.push_back((row + (row >= 4 ? 1 : 0)) * 3'600'000'000);
  series.frequency = infer_frequency(series.times);
  series.regular = false;
  const SeriesSource source(small(), series);
  const Batch batch = source.part(Part::kTrain)->get(2);
  EXPECT_EQ(batch.get("mask").sum().item<float>(), 7);
  EXPECT_EQ(batch.get("mask")[3][1].item<float>(), 0);
  EXPECT_EQ(batch.input[3][1].item<float>(), 0);
  EXPECT_NEAR(batch.get("elapsed")[2][0].item<float>(), std::log(2.0), 1e-6);
  EXPECT_EQ(batch.get("elapsed")[1][0].item<float>(), 0);
}

TEST(NpzSeries, ReadsOneChannelOfPems) {
  // data[t, n, c] = 100 t + 10 n + c; flat is [4, 2], line is [3]
  const std::string path = SERPENTINE_SOURCE_DIR "/tests/timeseries/data/pems.npz";
  const Series series = read_series(path, {.channel = 1});
  EXPECT_EQ(series.columns, (std::vector<std::string>{"0", "1", "2"}));
  ASSERT_EQ(series.values.sizes(), (std::vector<int64_t>{5, 3}));
  EXPECT_EQ(series.values[3][2].item<double>(), 321);
  EXPECT_EQ(read_series(path, {.array = "flat"}).values[3][1].item<double>(), 7);
  const auto error = [&](const FileOptions& options) -> std::string {
    try {
      (void)read_series(path, options);
    } catch (const c10::Error& caught) {
      return caught.what_without_backtrace();
    }
    return "no error";
  };
  EXPECT_EQ(error({.channel = 2}), path +
                                       ": array 'data' has 2 channels, channel 2 is asked for "
                                       "(they count from 0)");
  EXPECT_EQ(error({.array = "speed"}), path + ": holds no array 'speed', only: data, flat, line");
  EXPECT_EQ(error({.array = "line"}),
            path + ": array 'line' must be [T, N] or [T, N, channels], got [3]");
}

/// solar_AL.txt has neither a header nor dates, only numbers; the options are
/// configs/timeseries/base/solar.yaml's.
TEST_F(SeriesFile, ReadsSolarText) {
  std::string text;
  for (int row = 0; row < 60; ++row) {
    for (int column = 0; column < 4; ++column)
      text += (column ? "," : "") + std::to_string(row + 100 * column) + ".50";
    text += "\n";
  }
  const Config solar =
      Config::load(std::string(SERPENTINE_SOURCE_DIR) + "/configs/timeseries/base/solar.yaml");
  auto options = solar.child("data").read_typed<SeriesOptions>(SeriesOptions{});
  const Series series = read_series(write(text), options.file);
  EXPECT_EQ(series.columns, (std::vector<std::string>{"0", "1", "2", "3"}));
  ASSERT_EQ(series.rows(), 60);
  EXPECT_EQ(series.values[59][3].item<double>(), 359.5);
  EXPECT_TRUE(series.times.empty());
  EXPECT_EQ(series.label(60), "60");
  options.path = path_;
  options.seq_len = 6;
  options.pred_len = 2;
  const SeriesSource source(options);
  EXPECT_EQ(source.part(Part::kTrain)->size(), 42 - 8 + 1);
  EXPECT_EQ(source.part(Part::kValidation)->size(), 6 + 6 - 8 + 1);
  EXPECT_EQ(source.part(Part::kTest)->size(), 12 + 6 - 8 + 1);
  FileOptions dated = options.file;
  dated.start = "2006-01-01 00:00";
  dated.frequency = "10min";
  EXPECT_EQ(read_series(path_, dated).label(60), "2006-01-01 10:00:00");
}

TEST(SeriesSource, RefusesWhatCannotWork) {
  const auto error_of = [](const SeriesOptions& options, const Series& series) -> std::string {
    try {
      (void)SeriesSource(options, series);
    } catch (const std::exception& error) {
      return error.what();
    }
    return "no error";
  };
  SeriesOptions options = small();
  options.pred_len = 60;
  EXPECT_EQ(error_of(options, ramp(40, {"a"})),
            "<memory>: the train part has 28 rows (of 40), one window needs seq_len 4 + pred_len "
            "60 = 64");
  Series empty = ramp(40, {"a", "b"});
  empty.values.select(1, 1).fill_(std::nan(""));
  EXPECT_EQ(error_of(small(), empty), "<memory>: column 'b' has no value in the 28 training rows");
  options = small();
  options.targets = {"aa"};
  EXPECT_EQ(error_of(options, ramp(40, {"aaa"})),
            "<memory>: there is no column 'aa'; did you mean 'aaa'?");
  options = small();
  options.split = "etth";
  EXPECT_EQ(error_of(options, ramp(40, {"a"})),
            "<memory>: data.split etth needs 14400 rows, the file has 40");
  options.split = "ratio";
  options.ratios = {0.7, 0.4, 0.2};
  EXPECT_EQ(error_of(options, ramp(40, {"a"})),
            "<memory>: data.ratios must be three numbers (train, validation, test) that add up to "
            "at most 1");
  options.split = "week";
  options.ratios = {0.7, 0.1, 0.2};
  EXPECT_EQ(error_of(options, ramp(40, {"a"})),
            "<memory>: data.split must be etth, ettm, ratio, solar or pems, got 'week'");
}

}  // namespace
}  // namespace serpentine
