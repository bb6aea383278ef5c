// RFC 4180 tables: comma-separated text, plain or gzip, with the place of every error.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace serpentine {

struct CsvOptions {
  std::string delimiter = ",";  // one character, or "tab", "space"
  std::string decimal = ".";    // "." or ","
  std::string header =
      "auto";  // "yes", "no"; "auto": no if every cell of the first row is a number
};

/// Cells of a rectangular table; they view one text that copies share.
class CsvTable {
 public:
  std::vector<std::string> names;  // of the columns; "0", "1", ... without a header

  const std::string& path() const { return path_; }
  int64_t rows() const { return columns() ? static_cast<int64_t>(cells_.size()) / columns() : 0; }
  int64_t columns() const { return static_cast<int64_t>(names.size()); }
  std::string_view cell(int64_t row, int64_t column) const {
    return cells_[row * columns() + column];
  }

  /// The cell as a number; NaN where missing (empty, NaN, NA, N/A, null, none). Throws on anything
  /// else.
  double number(int64_t row, int64_t column) const;
  bool missing(int64_t row, int64_t column) const;

  /// Throws "path:line:column: message" with the cell's place (both from 1, columns in characters).
  [[noreturn]] void fail(int64_t row, int64_t column, const std::string& message) const;
  std::string place(int64_t row, int64_t column) const;

 private:
  friend class CsvParser;
  std::string path_;
  std::shared_ptr<const std::string> text_;
  std::vector<std::string_view> cells_;
  char decimal_ = '.';
};

/// Throws std::runtime_error with file, line and column: unreadable, empty, truncated, ragged, not
/// UTF-8, ...
CsvTable read_csv(const std::string& path, const CsvOptions& options = {});
CsvTable parse_csv(std::string text, const std::string& path, const CsvOptions& options = {});

/// A cell as a comma-separated file holds it: in quotes where it has a comma, a quote or a line
/// end.
std::string csv_cell(std::string_view text);

}  // namespace serpentine
