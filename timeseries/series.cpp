#include "timeseries/series.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <stdexcept>

#include <torch/torch.h>

#include "core/io/csv.h"
#include "core/io/text.h"
#include "timeseries/columns.h"
#include "timeseries/npz.h"
#include "timeseries/parquet_series.h"

namespace serpentine {
namespace {

// no number, and parts as a date has them: 01.04.2024 00:00
bool looks_like_date(std::string_view text) {
  int64_t marks = 0;
  for (size_t i = 1; i < text.size(); ++i) {
    const bool between = text.find_first_of("0123456789", i + 1) != std::string_view::npos;
    if (std::string_view(".:/-").find(text[i]) != std::string_view::npos && between) ++marks;
  }
  return marks >= 2 && text.find_first_of("0123456789") == 0;
}

// the column that holds the dates, or -1
int64_t date_column(const CsvTable& table, const FileOptions& options) {
  const int64_t named = named_date_column(table.names, options, table.path() + ":1:1");
  if (named >= 0 || options.date != "auto") return named;
  const std::string_view first = table.cell(0, 0);
  const bool dated = DateParser(options.date_format).parse(first).has_value();
  if (!dated && options.start.empty() && looks_like_date(first)) {
    table.fail(0, 0,
               "the date " + quoted(first) +
                   " has no known form; set data.date_format, as in %d/%m/%Y %H:%M");
  }
  return dated && table.columns() > 1 && options.start.empty() ? 0 : -1;
}

std::vector<Time> read_times(const CsvTable& table, int64_t column, const FileOptions& options) {
  DateParser parser(options.date_format);
  std::vector<Time> times;
  for (int64_t row = 0; row < table.rows(); ++row) {
    const std::string_view text = table.cell(row, column);
    const auto time = parser.parse(text);
    if (!time && parser.format().empty()) {
      table.fail(row, column,
                 "the date " + quoted(text) +
                     " has no known form; set data.date_format, as in %d/%m/%Y %H:%M");
    }
    if (!time)
      table.fail(row, column,
                 "the date " + quoted(text) + " does not have the form " + parser.format());
    const std::string wrong = order_error(times, *time, quoted(text), options.duplicates);
    if (!wrong.empty()) table.fail(row, column, wrong);
    times.push_back(*time);
  }
  return times;
}

void read_columns(const CsvTable& table, int64_t date, const FileOptions& options, Series& series) {
  check_used_columns(table.names, options, table.path());
  std::vector<int64_t> used;
  for (int64_t c = 0; c < table.columns(); ++c) {
    const std::string& name = table.names[c];
    if (c == date || !is_read(name, options)) continue;
    used.push_back(c);
    series.columns.push_back(name);
  }
  if (used.empty())
    throw std::runtime_error(table.path() + ":1:1: there is no column beside the date");
  series.values = torch::full({table.rows(), static_cast<int64_t>(used.size())},
                              std::numeric_limits<double>::quiet_NaN(), torch::kFloat64);
  double* out = series.values.data_ptr<double>();
  for (const int64_t c : used) {
    if (!holds(options.categorical, table.names[c])) continue;
    auto& texts = series.texts[table.names[c]];
    for (int64_t row = 0; row < table.rows(); ++row) {
      texts.push_back(table.missing(row, c) ? "" : std::string(table.cell(row, c)));
    }
  }
  for (int64_t row = 0; row < table.rows(); ++row) {
    for (size_t i = 0; i < used.size(); ++i, ++out) {
      if (series.texts.empty() || !series.texts.count(series.columns[i]))
        *out = table.number(row, used[i]);
    }
  }
}

// one row for each run of rows with one timestamp
void merge_duplicates(Series& series, const std::string& how) {
  std::vector<int64_t> starts;
  for (size_t i = 0; i < series.times.size(); ++i) {
    if (i == 0 || series.times[i] != series.times[i - 1]) starts.push_back(static_cast<int64_t>(i));
  }
  const auto rows = static_cast<int64_t>(series.times.size());
  if (static_cast<int64_t>(starts.size()) == rows) return;
  std::vector<Time> times;
  std::vector<torch::Tensor> values;
  std::map<std::string, std::vector<std::string>> texts;
  for (size_t i = 0; i < starts.size(); ++i) {
    const int64_t first = starts[i], end = i + 1 < starts.size() ? starts[i + 1] : rows;
    const int64_t chosen = how == "last" ? end - 1 : first;
    times.push_back(series.times[static_cast<size_t>(first)]);
    values.push_back(how == "mean" ? series.values.slice(0, first, end).nanmean(0)
                                   : series.values[chosen]);
    for (const auto& [name, of] : series.texts)
      texts[name].push_back(of[static_cast<size_t>(chosen)]);
  }
  series.values = torch::stack(values);
  series.times = std::move(times);
  for (auto& [name, of] : texts) series.texts[name] = std::move(of);
}

// rows for the timestamps that are absent from an otherwise regular grid
void fill_gaps(Series& series) {
  const Frequency& step = series.frequency;
  std::vector<Time> grid;
  std::vector<int64_t> rows;
  for (Time time = series.times.front(); time <= series.times.back();
       time = step.after(series.times.front(), static_cast<int64_t>(grid.size()))) {
    grid.push_back(time);
    if (grid.size() > 100 * series.times.size() + 1000) {
      throw std::runtime_error(series.path +
                               ": fill_gaps would add over 100 rows for every row; the step " +
                               step.text() + " does not fit the dates");
    }
  }
  for (const Time time : series.times) {
    const auto found = std::lower_bound(grid.begin(), grid.end(), time);
    if (found == grid.end() || *found != time) {
      throw std::runtime_error(series.path + ": the timestamp " + format_time(time) +
                               " is off the grid of step " + step.text() +
                               ", so gaps cannot be filled");
    }
    rows.push_back(found - grid.begin());
  }
  const auto count = static_cast<int64_t>(grid.size());
  torch::Tensor values = torch::full({count, series.values.size(1)},
                                     std::numeric_limits<double>::quiet_NaN(), torch::kFloat64);
  values.index_copy_(0, torch::tensor(rows, torch::kInt64), series.values);
  for (auto& [name, texts] : series.texts) {
    std::vector<std::string> filled(grid.size());
    for (size_t i = 0; i < rows.size(); ++i) filled[rows[i]] = texts[i];
    texts = std::move(filled);
  }
  series.values = values;
  series.times = std::move(grid);
}

void set_frequency(Series& series, const FileOptions& options) {
  if (!options.frequency.empty()) series.frequency = parse_frequency(options.frequency);
  if (series.times.empty() && !options.start.empty()) {
    const auto start = DateParser(options.date_format).parse(options.start);
    if (!start)
      throw std::runtime_error("data.start must be a date, as in 1990-01-01, got '" +
                               options.start + "'");
    if (!series.frequency.known())
      throw std::runtime_error("data.start needs data.frequency, as in 1d");
    for (int64_t row = 0; row < series.rows(); ++row)
      series.times.push_back(series.frequency.after(*start, row));
  }
  if (!series.frequency.known()) series.frequency = infer_frequency(series.times);
  if (options.fill_gaps && options.duplicates == "keep")
    throw std::runtime_error("data.fill_gaps does not go with data.duplicates: keep");
  if (options.fill_gaps && !series.times.empty()) fill_gaps(series);
  for (size_t i = 1; i < series.times.size() && series.regular; ++i) {
    series.regular =
        series.times[i] == series.frequency.after(series.times[0], static_cast<int64_t>(i));
  }
}

}  // namespace

void FileOptions::fields(Fields& f) {
  f("format", format, "layout of the file", {.choices = {"auto", "csv", "npz", "parquet"}});
  f("delimiter", delimiter, "one character, tab or space");
  f("decimal", decimal, "decimal mark", {.choices = {".", ","}});
  f("header", header, "whether the first row names the columns",
    {.choices = {"auto", "yes", "no"}});
  f("date", date, "column of the dates; auto finds it, none says that there is none");
  f("date_format", date_format,
    "strptime form of the dates, as in %d/%m/%Y %H:%M; empty: found from the first");
  f("start", start, "date of the first row of a file without dates");
  f("frequency", frequency,
    "step between rows, as in 15min, 1h, 1d, 1M; empty: found from the dates");
  f("fill_gaps", fill_gaps, "insert rows of missing values where a timestamp is absent");
  f("duplicates", duplicates,
    "rows of one timestamp: refuse the file, keep them all, or make them one row",
    {.choices = {"error", "keep", "first", "last", "mean"}});
  f("array", array, "name of the array in an npz file");
  f("channel", channel, "which channel of an npz array [T, N, channels]", {.least = 0});
  f("categorical", categorical, "columns of categories: one indicator token a level");
  f("ignore", ignore, "columns that are not read");
}

int64_t Series::column(const std::string& name) const {
  const auto found = std::find(columns.begin(), columns.end(), name);
  if (found != columns.end()) return found - columns.begin();
  no_column(columns, name, path);
}

std::string Series::label(int64_t row) const {
  if (times.empty()) return std::to_string(row);
  const auto count = static_cast<int64_t>(times.size());
  return format_time(row < count ? times[row] : frequency.after(times.back(), row - count + 1));
}

Series read_series(const std::string& path, const FileOptions& options) {
  Series series;
  series.path = path;
  const bool npz = options.format == "npz" ||
                   (options.format == "auto" && path.size() > 4 && path.ends_with(".npz"));
  if (npz) {
    series.values = read_npz_series(path, options.array, options.channel);
    for (int64_t c = 0; c < series.values.size(1); ++c) series.columns.push_back(std::to_string(c));
  } else if (options.format == "parquet" ||
             (options.format == "auto" && file_begins_with(path, "PAR1"))) {
    series = read_parquet_series(path, options);
    if (options.duplicates != "keep") merge_duplicates(series, options.duplicates);
  } else {
    const CsvTable table = read_csv(path, {options.delimiter, options.decimal, options.header});
    const int64_t date = date_column(table, options);
    if (date >= 0) series.times = read_times(table, date, options);
    read_columns(table, date, options, series);
    if (options.duplicates != "keep") merge_duplicates(series, options.duplicates);
  }
  set_frequency(series, options);
  return series;
}

Series make_series(torch::Tensor values, std::vector<std::string> columns,
                   std::vector<Time> times) {
  TORCH_CHECK(values.dim() == 2 && values.scalar_type() == torch::kFloat64 &&
                  values.size(1) == static_cast<int64_t>(columns.size()),
              "make_series: values must be float64 [T, C] with C = ", columns.size(),
              " columns, got ", values.scalar_type(), " ", values.sizes());
  TORCH_CHECK(times.empty() || static_cast<int64_t>(times.size()) == values.size(0),
              "make_series: times must have T = ", values.size(0), " entries, got ", times.size());
  Series series;
  series.path = "<memory>";
  series.columns = std::move(columns);
  series.values = values.contiguous();
  series.times = std::move(times);
  set_frequency(series, {});
  return series;
}

}  // namespace serpentine
