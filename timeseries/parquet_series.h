// A series from a Parquet file.
#pragma once

#include <string>

#include "timeseries/series.h"

namespace serpentine {

/// Columns, values, texts and times as the file holds them. The dates are the column that
/// `options.date` names; for "auto" one with a usual name, else the first of times.
Series read_parquet_series(const std::string& path, const FileOptions& options);

}  // namespace serpentine
