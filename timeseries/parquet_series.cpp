#include "timeseries/parquet_series.h"

#include <limits>
#include <stdexcept>

#include <torch/torch.h>

#include "core/io/parquet.h"
#include "core/io/text.h"
#include "timeseries/columns.h"

namespace serpentine {
namespace {

using Kind = ParquetColumn::Kind;

[[noreturn]] void fail_at(const std::string& path, const ParquetColumn& column, int64_t row,
                          const std::string& message) {
  throw std::runtime_error(path + ": row " + std::to_string(row + 1) + " of column '" +
                           column.name + "': " + message);
}

int64_t date_column_of(const std::vector<ParquetColumn>& columns, const FileOptions& options,
                       const std::string& path) {
  std::vector<std::string> names;
  for (const auto& column : columns) names.push_back(column.name);
  const int64_t found = named_date_column(names, options, path);
  if (found >= 0 || options.date != "auto") return found;
  for (size_t i = 0; i < columns.size(); ++i) {
    if (columns[i].kind == Kind::kTime) return static_cast<int64_t>(i);  // an index of pandas
  }
  return -1;
}

std::vector<Time> parsed_times(const std::string& path, const ParquetColumn& column,
                               const FileOptions& options) {
  if (column.kind == Kind::kTime) {
    if (column.missing >= 0) fail_at(path, column, column.missing, "the date is missing");
    return column.times;
  }
  if (column.kind == Kind::kNumber) {
    throw std::runtime_error(path + ": column '" + column.name +
                             "' must hold dates, it holds numbers; data.date names another");
  }
  DateParser parser(options.date_format);
  std::vector<Time> times;
  for (size_t row = 0; row < column.texts.size(); ++row) {
    const auto time = parser.parse(column.texts[row]);
    if (!time) {
      fail_at(path, column, static_cast<int64_t>(row),
              "the date " + serpentine::quoted(column.texts[row]) +
                  (parser.format().empty()
                       ? " has no known form; set data.date_format, as in %d/%m/%Y %H:%M"
                       : " does not have the form " + parser.format()));
    }
    times.push_back(*time);
  }
  return times;
}

torch::Tensor finite_numbers(const std::string& path, const ParquetColumn& column) {
  if (column.kind != Kind::kNumber) {
    throw std::runtime_error(
        path + ": column '" + column.name + "' must be numbers, it holds " +
        (column.kind == Kind::kText ? "texts" : "times") +
        "; name it in data.categorical or data.ignore, or the others in data.targets");
  }
  const auto infinite = column.numbers.isinf();
  if (infinite.any().item<bool>()) {
    fail_at(path, column, infinite.nonzero()[0][0].item<int64_t>(), "the number must be finite");
  }
  return column.numbers;
}

}  // namespace

Series read_parquet_series(const std::string& path, const FileOptions& options) {
  Series series;
  series.path = path;
  const auto columns = read_parquet(path, {{}, options.categorical});
  const int64_t date = date_column_of(columns, options, path);
  std::vector<Time> times;  // before the numbers: a date column misnamed leaves the true one there
  if (date >= 0) times = parsed_times(path, columns[static_cast<size_t>(date)], options);
  std::vector<std::string> names;
  for (const auto& column : columns) names.push_back(column.name);
  check_used_columns(names, options, path);
  std::vector<torch::Tensor> values;
  for (size_t i = 0; i < columns.size(); ++i) {
    const ParquetColumn& column = columns[i];
    if (static_cast<int64_t>(i) == date || !is_read(column.name, options)) continue;
    series.columns.push_back(column.name);
    if (holds(options.categorical, column.name)) {
      series.texts[column.name] = column.texts;
      values.push_back(torch::full({static_cast<int64_t>(column.texts.size())},
                                   std::numeric_limits<double>::quiet_NaN(), torch::kFloat64));
    } else {
      values.push_back(finite_numbers(path, column));
    }
  }
  if (values.empty()) throw std::runtime_error(path + ": there is no column beside the date");
  series.values = torch::stack(values, 1);
  if (series.rows() == 0) throw std::runtime_error(path + ": the file has no rows");
  if (date < 0) return series;
  const auto& dated = columns[static_cast<size_t>(date)];
  for (const Time time : times) {
    const std::string wrong =
        order_error(series.times, time, serpentine::quoted(format_time(time)), options.duplicates);
    if (!wrong.empty()) fail_at(path, dated, static_cast<int64_t>(series.times.size()), wrong);
    series.times.push_back(time);
  }
  return series;
}

}  // namespace serpentine
