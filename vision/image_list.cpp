// A CSV that lists pictures: path,label[,split], in any sequence of columns.
#include <algorithm>
#include <filesystem>
#include <set>
#include <string_view>

#include "core/check.h"
#include "core/io/gzip.h"
#include "vision/image_source.h"
#include "vision/vision.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;

struct ListOptions : ImageDataOptions {
  std::string root;
  std::vector<std::string> classes;
  void fields(Fields& f) {
    ImageDataOptions::fields(f);
    f("root", root, "folder that the paths are relative to; empty: the list's own");
    f("classes", classes,
      "names of the classes, in this sequence; empty: those of the list, sorted");
  }
};

/// The cells of the next line (RFC 4180: quotes may hold commas, quotes and line ends).
std::vector<std::string> next_row(std::string_view& text, int64_t& line) {
  std::vector<std::string> cells(1);
  bool quoted = false;
  size_t at = 0;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '\n') ++line;
    if (quoted) {
      if (c == '"' && at + 1 < text.size() && text[at + 1] == '"') {
        cells.back() += c;
        ++at;
      } else if (c == '"') {
        quoted = false;
      } else {
        cells.back() += c;
      }
    } else if (c == '"' && cells.back().empty()) {
      quoted = true;
    } else if (c == ',') {
      cells.emplace_back();
    } else if (c == '\n') {
      ++at;
      break;
    } else if (c != '\r') {
      cells.back() += c;
    }
  }
  text.remove_prefix(at);
  return cells;
}

struct Row {
  std::string path, label, split, place;
};

std::vector<Row> read_rows(const std::string& path) {
  const std::string bytes = read_unpacked(path);
  std::string_view text = bytes;
  if (text.substr(0, 3) == "\xEF\xBB\xBF") text.remove_prefix(3);
  int64_t line = 1;
  const auto header = next_row(text, line);
  const auto column = [&](const char* name) {
    return static_cast<size_t>(std::find(header.begin(), header.end(), name) - header.begin());
  };
  const size_t paths = column("path"), labels = column("label"), splits = column("split");
  SERPENTINE_CHECK(paths < header.size() && labels < header.size(), path,
                   "the first line must name the columns path and label (and split, if there is "
                   "one)");
  std::vector<Row> rows;
  while (!text.empty()) {
    const std::string place = path + ":" + std::to_string(line);
    const auto cells = next_row(text, line);
    if (cells.size() == 1 && cells[0].empty()) continue;
    SERPENTINE_CHECK(cells.size() == header.size(), place, "has ", cells.size(),
                     " cells, the first line has ", header.size());
    rows.push_back(
        {cells[paths], cells[labels], splits < cells.size() ? cells[splits] : "", place});
  }
  return rows;
}

LabelledImages read_list(const ListOptions& options) {
  const auto rows = read_rows(options.path);
  LabelledImages all;
  all.classes = options.classes;
  if (all.classes.empty()) {
    std::set<std::string> names;
    for (const auto& row : rows) names.insert(row.label);
    names.erase("");
    all.classes.assign(names.begin(), names.end());
  }
  const fs::path root =
      options.root.empty() ? fs::path(options.path).parent_path() : fs::path(options.root);
  ImageFaults faults;
  std::set<std::string> unknown;
  int64_t strangers = 0;
  std::vector<std::string> paths;
  for (const auto& row : rows) {
    const auto at = std::find(all.classes.begin(), all.classes.end(), row.label);
    if (at == all.classes.end()) {
      unknown.insert(row.label);
      ++strangers;
      continue;
    }
    const std::string file = (root / row.path).string();  // an absolute path stays as it is
    if (const std::string why = fault_of_file(file); !why.empty()) {
      faults.report(file, why);
      continue;
    }
    const std::string split = split_name(row.split);
    SERPENTINE_CHECK(row.split.empty() || !split.empty(), row.place, "there is no part '",
                     row.split, "'; known are train, val and test");
    paths.push_back(file);
    all.labels.push_back(at - all.classes.begin());
    all.splits.push_back(split);
  }
  if (strangers > 0) {
    std::string names;
    for (const auto& name : unknown) names += (names.empty() ? "'" : ", '") + name + "'";
    all.notes.push_back(
        std::to_string(strangers) +
        " rows have a label that is not among `classes` and are left out: " + names);
  }
  if (const std::string note = faults.note(); !note.empty()) all.notes.push_back(note);
  all.store = std::make_shared<FileImages>(std::move(paths), options.channels == 1 ? 1 : 3);
  return all;
}

}  // namespace

void add_image_list(Registry<DataSource>& all) {
  all.add<ListOptions>("image_list", [](const ListOptions& options) {
    return std::make_shared<ImageSource>(options, read_list(options));
  });
}

}  // namespace serpentine
