// What tables of text and Parquet files share: the column of dates, the columns read, time order.
#pragma once

#include <string>
#include <vector>

#include "timeseries/series.h"

namespace serpentine {

/// The column of dates that `options.date` names, or for "auto" the first with a usual name; -1 if
/// there is none. Throws "place: ..." if the named one does not exist.
int64_t named_date_column(const std::vector<std::string>& names, const FileOptions& options,
                          const std::string& place);

/// Throws "place: there is no column 'x'", with the nearest of `names`.
[[noreturn]] void no_column(const std::vector<std::string>& names, const std::string& name,
                            const std::string& place, const std::string& what = "column");

/// Throws by no_column() unless all columns that roles use are there.
void check_used_columns(const std::vector<std::string>& names, const FileOptions& options,
                        const std::string& place);

/// Whether a column is read: not ignored, and used by some role.
bool is_read(const std::string& name, const FileOptions& options);

/// What is wrong with a row of time `time` that is shown as `shown`, below `above`; "" if nothing.
std::string order_error(const std::vector<Time>& above, Time time, const std::string& shown,
                        const std::string& duplicates);

bool holds(const std::vector<std::string>& names, const std::string& name);

}  // namespace serpentine
