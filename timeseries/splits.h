// Which rows train, validate and test: the published borders of each data set, or the user's
// ratios.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace serpentine {

/// Rows [begin, end) that the windows of a part lie in.
struct RowRange {
  int64_t begin = 0, end = 0;
  int64_t rows() const { return end - begin; }
  int64_t windows(int64_t length) const { return rows() < length ? 0 : rows() - length + 1; }
};

struct Borders {
  RowRange train, validation, test;
};

/// `split`: etth (12/4/4 months of 30 days of hours), ettm (the same of quarters), ratio (test from
/// the end, validation the rest), solar (validation by its own ratio), pems (cut without overlap).
/// Except for pems, validation and test begin `seq_len` rows early, so that their first row can be
/// predicted. `ratios`: train, validation, test. Throws with the numbers when the rows do not
/// suffice.
Borders split_rows(const std::string& path, const std::string& split, int64_t rows, int64_t seq_len,
                   const std::vector<double>& ratios);

}  // namespace serpentine
