// A series as its file holds it: rows in time, named columns, NaN where a value is missing.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <torch/types.h>

#include "core/config.h"
#include "timeseries/dates.h"

namespace serpentine {

/// How a file is read.
struct FileOptions {
  std::string format = "auto";
  std::string delimiter = ",", decimal = ".", header = "auto";  // of csv
  std::string date = "auto", date_format;
  std::string start, frequency;
  std::string duplicates = "error";  // keep, first, last or mean: rows of one timestamp
  bool fill_gaps = false;
  std::string array = "data";  // of npz, with the channel of [T, N, channels]
  int64_t channel = 0;
  std::vector<std::string> categorical, ignore;
  std::vector<std::string> only;  // not an option: the columns that some role uses; empty: all
  void fields(Fields& f);
};

struct Series {
  std::string path;
  std::vector<std::string> columns;  // C names, without the date
  torch::Tensor values;              // float64 [T, C]; NaN: missing, or a category
  std::map<std::string, std::vector<std::string>>
      texts;                // the categorical columns, "" where missing
  std::vector<Time> times;  // T, increasing, repeats only if kept; empty without dates
  Frequency frequency;      // the step, for labels beyond the data
  bool regular = true;      // every step is the frequency

  int64_t rows() const { return values.size(0); }
  int64_t column(const std::string& name) const;  // throws with the nearest name
  std::string label(int64_t row) const;  // a date, or the row's number; rows beyond the data too
};

/// Errors name the file, line and column.
Series read_series(const std::string& path, const FileOptions& options = {});

/// A series from memory, without a file: values float64 [T, C]. `times` may be empty.
Series make_series(torch::Tensor values, std::vector<std::string> columns,
                   std::vector<Time> times = {});

}  // namespace serpentine
