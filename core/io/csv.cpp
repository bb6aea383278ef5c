#include "core/io/csv.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>
#include <stdexcept>

#include "core/io/text.h"

namespace serpentine {
namespace {

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool is_missing(std::string_view text) {
  text = trimmed(text);
  if (text.empty()) return true;
  if (text.size() > 4) return false;
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower == "nan" || lower == "na" || lower == "n/a" || lower == "null" || lower == "none";
}

bool read_number(std::string_view text, char decimal, double& value) {
  text = trimmed(text);
  std::string swapped;
  if (decimal != '.') {
    // 1.234 may be a thousand and more: who writes decimal commas must not be misread
    if (text.find('.') != std::string_view::npos) return false;
    swapped = text;
    std::replace(swapped.begin(), swapped.end(), decimal, '.');
    text = swapped;
  }
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
  const auto end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return result.ec == std::errc() && result.ptr == end;
}

/// Whether a cell begins like 2024-03-01, 01.03.2024 or 3/1/24: no header does.
bool is_date(std::string_view text) {
  text = trimmed(text);
  int groups = 0;
  size_t at = 0;
  while (groups < 3) {
    const size_t begin = at;
    while (at < text.size() && std::isdigit(static_cast<unsigned char>(text[at]))) ++at;
    if (at == begin || at - begin > 4) return false;
    if (++groups == 3) break;
    if (at == text.size() || (text[at] != '-' && text[at] != '.' && text[at] != '/')) return false;
    ++at;
  }
  return at == text.size() || text[at] == ' ' || text[at] == 'T';
}

char one_character(const std::string& text, const char* what) {
  if (text == "tab" || text == "\\t") return '\t';
  if (text == "space") return ' ';
  if (text.size() == 1 && text[0] != '"' && text[0] != '\n' && text[0] != '\r') return text[0];
  throw std::runtime_error(std::string("csv: ") + what +
                           " must be one character, tab or space, got '" + text + "'");
}

}  // namespace

bool CsvTable::missing(int64_t row, int64_t column) const { return is_missing(cell(row, column)); }

double CsvTable::number(int64_t row, int64_t column) const {
  const std::string_view text = cell(row, column);
  double value = 0;
  if (read_number(text, decimal_, value)) {
    if (std::isnan(value)) return std::numeric_limits<double>::quiet_NaN();
    if (std::isinf(value))
      fail(row, column, "column '" + names[column] + "' must be finite, got " + quoted(text));
    return value;
  }
  if (is_missing(text)) return std::numeric_limits<double>::quiet_NaN();
  fail(row, column, "column '" + names[column] + "' must be a number, got " + quoted(text));
}

std::string CsvTable::place(int64_t row, int64_t column) const {
  const auto offset = static_cast<size_t>(cell(row, column).data() - text_->data());
  return place_in(path_, *text_, offset);
}

void CsvTable::fail(int64_t row, int64_t column, const std::string& message) const {
  throw std::runtime_error(place(row, column) + ": " + message);
}

/// Splits a text into cells in one pass; quoted cells are unescaped in place.
class CsvParser {
 public:
  CsvParser(std::string text, const std::string& path, const CsvOptions& options)
      : text_(std::make_shared<std::string>(std::move(text))), path_(path), options_(options) {
    delimiter_ = one_character(options.delimiter, "delimiter");
    table_.path_ = path;
    table_.text_ = text_;
    table_.decimal_ = one_character(options.decimal, "decimal");
  }

  CsvTable parse() {
    check_utf8(path_, *text_);
    pos_ = text_->rfind("\xEF\xBB\xBF", 0) == 0 ? 3 : 0;
    if (text_->find_first_not_of(" \t\r\n", pos_) == std::string::npos)
      fail(0, "the file is empty");
    while (pos_ < text_->size()) row();
    name_columns();
    if (table_.cells_.empty()) fail(0, "the file has a header but no rows");
    return std::move(table_);
  }

 private:
  [[noreturn]] void fail(size_t offset, const std::string& message) const {
    throw std::runtime_error(place_in(path_, *text_, offset) + ": " + message);
  }

  // one line; blank lines are skipped unless the table has one column, where they are missing
  // values
  void row() {
    const size_t begin = pos_, first = table_.cells_.size();
    while (cell()) {
    }
    const size_t count = table_.cells_.size() - first;
    const bool blank = count == 1 && table_.cells_.back().empty() && (*text_)[begin] != '"';
    if (blank && (width_ != 1 || text_->find_first_not_of("\r\n", begin) == std::string::npos)) {
      table_.cells_.pop_back();
      return;
    }
    if (width_ == 0) {
      width_ = count;
      if (count == 1) check_delimiter(begin);
    }
    if (count == width_) return;
    std::string message = "the row has " + std::to_string(count) + " fields, the first row has " +
                          std::to_string(width_);
    const bool last = text_->find_first_not_of("\r\n", pos_) == std::string::npos;
    if (last && count < width_) message += "; the file may be truncated";
    fail(begin, message);
  }

  // one cell; true when another follows on the line
  bool cell() {
    std::string& text = *text_;
    if (pos_ < text.size() && text[pos_] == '"') {
      quoted_cell();
    } else {
      const size_t begin = pos_;
      while (pos_ < text.size() && text[pos_] != delimiter_ && text[pos_] != '\n' &&
             text[pos_] != '\r') {
        if (text[pos_] == '"') fail(pos_, "a quote stands inside an unquoted field");
        ++pos_;
      }
      table_.cells_.emplace_back(text.data() + begin, pos_ - begin);
    }
    if (pos_ >= text.size()) return false;
    const char stop = text[pos_++];
    if (stop == '\r' && pos_ < text.size() && text[pos_] == '\n') ++pos_;
    return stop == delimiter_;
  }

  void quoted_cell() {
    std::string& text = *text_;
    const size_t open = pos_++;
    size_t write = pos_;
    for (;; ++pos_) {
      if (pos_ >= text.size()) fail(open, "the quote that opens here is never closed");
      if (text[pos_] == '"') {
        if (pos_ + 1 >= text.size() || text[pos_ + 1] != '"') break;
        ++pos_;
      }
      text[write++] = text[pos_];
    }
    table_.cells_.emplace_back(text.data() + open + 1, write - open - 1);
    std::fill(text.begin() + static_cast<std::ptrdiff_t>(write),
              text.begin() + static_cast<std::ptrdiff_t>(pos_), ' ');
    ++pos_;
    if (pos_ < text.size() && text[pos_] != delimiter_ && text[pos_] != '\n' &&
        text[pos_] != '\r') {
      fail(pos_, "a quoted field must end at the delimiter or the end of the line");
    }
  }

  void check_delimiter(size_t begin) const {
    const std::string_view line = table_.cells_.front();
    for (const auto& [other, name] :
         {std::pair{';', "';'"}, {'\t', "'tab'"}, {'|', "'|'"}, {',', "','"}}) {
      if (other == delimiter_ || line.find(other) == std::string_view::npos) continue;
      fail(begin, "the first row has one field with delimiter '" + options_.delimiter +
                      "'; the delimiter seems to be " + name);
    }
  }

  void name_columns() {
    auto& cells = table_.cells_;
    const auto width = static_cast<std::ptrdiff_t>(width_);
    bool header = options_.header == "yes";
    if (options_.header == "auto") {
      header = std::any_of(cells.begin(), cells.begin() + width, [&](std::string_view cell) {
        double value = 0;
        return !read_number(cell, table_.decimal_, value) && !is_missing(cell) && !is_date(cell);
      });
    } else if (options_.header != "yes" && options_.header != "no") {
      throw std::runtime_error("csv: header must be auto, yes or no, got '" + options_.header +
                               "'");
    }
    std::set<std::string> seen;
    for (std::ptrdiff_t i = 0; i < width; ++i) {
      std::string name = header ? std::string(trimmed(cells[i])) : std::to_string(i);
      if (name.empty()) name = "column " + std::to_string(i + 1);
      if (!seen.insert(name).second) {
        fail(static_cast<size_t>(cells[i].data() - text_->data()),
             "the header names column '" + name + "' twice");
      }
      table_.names.push_back(name);
    }
    if (header) cells.erase(cells.begin(), cells.begin() + width);
  }

  std::shared_ptr<std::string> text_;
  std::string path_;
  CsvOptions options_;
  CsvTable table_;
  char delimiter_ = ',';
  size_t pos_ = 0, width_ = 0;
};

CsvTable parse_csv(std::string text, const std::string& path, const CsvOptions& options) {
  return CsvParser(std::move(text), path, options).parse();
}

CsvTable read_csv(const std::string& path, const CsvOptions& options) {
  return parse_csv(read_text(path), path, options);
}

std::string csv_cell(std::string_view text) {
  if (text.find_first_of(",\"\n\r") == std::string_view::npos) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + "\"";
}

}  // namespace serpentine
