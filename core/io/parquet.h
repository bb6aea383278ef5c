// Tables in Parquet files: columns of numbers, texts and times.
//
// Needs Arrow (SERPENTINE_PARQUET); a build without throws one sentence that says what to do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace serpentine {

/// Whether this build reads Parquet.
bool parquet_available();

/// Whether a file begins as Parquet files do, whatever its name; false if it cannot be read.
bool is_parquet(const std::string& path);

struct ParquetColumn {
  enum class Kind { kNumber, kText, kTime };
  std::string name;
  Kind kind = Kind::kNumber;
  at::Tensor numbers;              // kNumber: float64 [T]; NaN where missing
  std::vector<std::string> texts;  // kText: T texts; "" where missing
  std::vector<int64_t> times;      // kTime: T times, microseconds since 1970
  int64_t missing = -1;            // kTime: the first row without a time, or -1
};

/// What to read of a file.
struct ParquetOptions {
  std::vector<std::string> only;     // columns to read; empty: all
  std::vector<std::string> as_text;  // of these, columns that become texts, as categories are
};

/// The columns of a file, in its order. Whole numbers, truth values and decimals become float64;
/// dates, and timestamps of any unit, microseconds in UTC (a file's time zone is for show);
/// dictionaries what they stand for. Columns of other kinds (lists, structs, ...) are refused if
/// asked for, else left out. Throws c10::Error with file, column and cause.
std::vector<ParquetColumn> read_parquet(const std::string& path,
                                        const ParquetOptions& options = {});

}  // namespace serpentine
