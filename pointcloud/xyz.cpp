// Text tables of points: .xyz, .txt and .csv, with or without a line of names.
#include <algorithm>
#include <array>
#include <limits>

#include <ATen/ATen.h>

#include "core/check.h"
#include "pointcloud/cloud.h"
#include "pointcloud/cloud_text.h"

namespace serpentine {
namespace {

char delimiter_of(std::string_view line) {
  for (const char candidate : {';', ',', '\t'}) {
    if (line.find(candidate) != std::string_view::npos) return candidate == '\t' ? ' ' : candidate;
  }
  return ' ';
}

std::string lower(std::string_view word) {
  std::string text(word);
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"')
    text = text.substr(1, text.size() - 2);
  return text;
}

bool is_header(const std::vector<std::string_view>& words) {
  double number = 0;
  return std::any_of(words.begin(), words.end(),
                     [&](auto word) { return !word.empty() && !parse_number(word, number); });
}

struct Table {
  std::vector<std::string> names;  // empty without a header
  size_t width = 0;
  int64_t line = 1;            // the first one that is not empty
  std::vector<double> values;  // row by row
};

Table read_table(TextScanner& text) {
  Table table;
  std::string_view line;
  char delimiter = 0;
  while (text.line(line)) {
    line = line.substr(0, std::min(line.find('#'), line.size()));
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    const bool first = delimiter == 0;
    if (first) delimiter = delimiter_of(line);
    const auto words = words_of(line, delimiter);
    if (first) {
      table.width = words.size();
      table.line = text.line_number();
      if (is_header(words)) {
        for (const auto word : words) table.names.push_back(lower(word));
        continue;
      }
    }
    if (words.size() != table.width)
      text.fail("the line has " + std::to_string(words.size()) + " values, the first one has " +
                std::to_string(table.width));
    for (const auto word : words) {
      double value = std::numeric_limits<double>::quiet_NaN();
      if (!word.empty() && !parse_number(word, value))
        text.fail("'" + std::string(word.substr(0, 40)) + "' is not a number");
      table.values.push_back(value);
    }
  }
  return table;
}

// where the coordinates are: named x, y, z, or the first three columns
std::array<size_t, 3> axes_of(const Table& table, const std::string& who) {
  std::array<size_t, 3> axes = {0, 1, 2};
  if (!table.names.empty()) {
    for (size_t axis = 0; axis < 3; ++axis) {
      const std::string name(1, static_cast<char>('x' + axis));
      const auto at = std::find(table.names.begin(), table.names.end(), name);
      SERPENTINE_CHECK(at != table.names.end(), who + ":" + std::to_string(table.line),
                       "the first line names no column '", name, "'");
      axes[axis] = at - table.names.begin();
    }
  }
  return axes;
}

}  // namespace

PointCloud parse_xyz(std::string_view bytes, const std::string& who) {
  if (bytes.starts_with("\xEF\xBB\xBF")) bytes.remove_prefix(3);
  TextScanner text(bytes, who);
  const Table table = read_table(text);
  SERPENTINE_CHECK(table.values.empty() || table.width >= 3, who + ":" + std::to_string(table.line),
                   "a line must have at least 3 numbers, got ", table.width);
  PointCloud cloud;
  cloud.stored = NumberType::kF64;
  if (table.values.empty()) {
    cloud.points = at::empty({0, 3}, at::kDouble);
    return cloud;
  }
  const at::Tensor all =
      at::tensor(table.values, at::kDouble).view({-1, static_cast<int64_t>(table.width)});
  const auto axes = axes_of(table, who);
  const auto column = [&](size_t i) { return all.select(1, static_cast<int64_t>(i)); };
  cloud.points = at::stack({column(axes[0]), column(axes[1]), column(axes[2])}, 1);
  for (size_t i = 0; i < table.width; ++i) {
    if (std::find(axes.begin(), axes.end(), i) != axes.end()) continue;
    const std::string name = table.names.empty() || table.names[i].empty()
                                 ? "field_" + std::to_string(i)
                                 : table.names[i];
    cloud.set(name, column(i).contiguous(), NumberType::kF64);
  }
  return cloud;
}

std::string xyz_text(const PointCloud& cloud, char delimiter, bool header) {
  std::vector<at::Tensor> columns;
  std::vector<bool> narrow;  // float32: the shorter text is the same number
  std::string text = header ? std::string("x") + delimiter + "y" + delimiter + "z" : "";
  for (int64_t axis = 0; axis < 3; ++axis) {
    columns.push_back(cloud.points.select(1, axis).contiguous());
    narrow.push_back(cloud.stored == NumberType::kF32);
  }
  for (const auto& field : cloud.fields) {
    const at::Tensor flat = as_columns(field.values);
    for (int64_t i = 0; i < flat.size(1); ++i) {
      columns.push_back(flat.select(1, i).to(at::kDouble).contiguous());
      narrow.push_back(field.type == NumberType::kF32);
      if (header)
        text += delimiter + field.name + (flat.size(1) == 1 ? "" : "_" + std::to_string(i));
    }
  }
  if (header) text += '\n';
  for (int64_t row = 0; row < cloud.size(); ++row) {
    for (size_t c = 0; c < columns.size(); ++c) {
      if (c > 0) text += delimiter;
      const double value = columns[c].const_data_ptr<double>()[row];
      if (narrow[c]) {
        append_number(text, static_cast<float>(value));
      } else {
        append_number(text, value);
      }
    }
    text += '\n';
  }
  return text;
}

}  // namespace serpentine
