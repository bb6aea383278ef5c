// Cases listed in a CSV.
#include <algorithm>

#include "core/io/csv.h"
#include "core/io/text.h"
#include "segmentation/case_group.h"
#include "segmentation/case_lists.h"
#include "segmentation/file_error.h"
#include "segmentation/text_header.h"

namespace serpentine {
namespace {

/// What stands between the cells: spreadsheets of many countries write semicolons.
std::string delimiter_of(const std::string& text) {
  const std::string head = text.substr(0, text.find_first_of("\r\n"));
  const auto count = [&](char c) { return std::count(head.begin(), head.end(), c); };
  const auto commas = count(','), semicolons = count(';'), tabs = count('\t');
  if (tabs > std::max(commas, semicolons)) return "tab";
  return semicolons > commas ? ";" : ",";
}

std::string split_of(const CsvTable& table, int64_t row, int64_t column, const std::string& cell) {
  const auto word = lower_case(cell);
  if (word.empty()) return "";
  if (word == "train" || word == "training") return "train";
  if (word == "val" || word == "valid" || word == "validation") return "validation";
  if (word == "test" || word == "testing") return "test";
  table.fail(row, column, "the split must be train, val or test, got " + serpentine::quoted(cell));
}

}  // namespace

CaseList cases_of_csv(const std::filesystem::path& file) {
  const std::string text = read_text(file.string());
  CsvOptions options;
  options.delimiter = delimiter_of(text);
  options.header = "yes";
  const CsvTable table = parse_csv(text, file.string(), options);
  std::vector<std::string> head;
  for (const auto& name : table.names) head.push_back(lower_case(name));
  if (std::none_of(head.begin(), head.end(),
                   [](const auto& c) { return c.starts_with("image"); }) ||
      std::find(head.begin(), head.end(), "label") == head.end())
    fail_file(file, "needs the columns image (image1, image2, ... for channels) and label");
  CaseList list;
  std::vector<CaseFiles> all;
  for (int64_t row = 0; row < table.rows(); ++row) {
    CaseFiles found;
    bool empty = true;
    for (int64_t column = 0; column < table.columns(); ++column) {
      const auto cell = trimmed(std::string(table.cell(row, column)));
      const auto& name = head[static_cast<size_t>(column)];
      if (cell.empty()) continue;
      empty = false;
      const auto absolute = (file.parent_path() / cell).lexically_normal().string();
      if (name.starts_with("image")) found.images.push_back(absolute);
      if (name == "label") found.label = absolute;
      if (name == "name") found.name = cell;
      if (name == "group" || name == "patient") found.group = cell;
      if (name == "split") found.split = split_of(table, row, column, cell);
    }
    if (empty) continue;  // what a spreadsheet leaves at the end
    if (found.images.empty()) table.fail(row, 0, "the row names no image");
    all.push_back(std::move(found));
  }
  name_cases(all, file.string());
  for (auto& one : all)
    (one.label.empty() ? list.unlabelled : list.cases).push_back(std::move(one));
  return list;
}

}  // namespace serpentine
