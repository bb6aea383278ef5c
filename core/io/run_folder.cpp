#include "core/io/run_folder.h"

#include <c10/util/Exception.h>
#include <torch/version.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/io/atomic_file.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

std::string local_time(const char* format) {
  const std::time_t now = std::time(nullptr);
  std::tm parts = {};
  ::localtime_r(&now, &parts);
  char text[64];
  return std::string(text, std::strftime(text, sizeof text, format, &parts));
}

void make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  TORCH_CHECK(!error && fs::is_directory(path), path,
              " cannot be made a folder: ", error ? error.message() : "a file of this name exists");
}

std::vector<std::string> lines_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    if (file.eof()) break;  // no newline: the run was killed while it wrote this
    lines.push_back(line);
  }
  return lines;
}

void write_lines(const std::string& path, const std::vector<std::string>& lines) {
  std::string text;
  for (const auto& line : lines) text.append(line).append("\n");
  write_atomically(path, text);
}

std::string csv_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

std::string csv_header(const std::vector<std::string>& columns) {
  std::string text = "step,time";
  for (const auto& column : columns) text += "," + column;
  return text;
}

/// The step of a row of metrics.csv or metrics.jsonl; nothing when the row is damaged.
std::optional<int64_t> step_of(const std::string& line) {
  if (line.empty()) return {};
  if (line.front() == '{') {
    const auto row = ordered_json::parse(line, nullptr, false);
    if (!row.is_object() || !row.contains("step") || !row["step"].is_number_integer()) return {};
    return row["step"].get<int64_t>();
  }
  char* end = nullptr;
  const int64_t step = std::strtoll(line.c_str(), &end, 10);
  if (end == line.c_str() || *end != ',') return {};
  return step;
}

void truncate_rows(const std::string& path, int64_t step, bool header) {
  if (!fs::exists(path)) return;
  std::vector<std::string> kept;
  for (auto& line : lines_of(path)) {
    const bool head = header && kept.empty();
    const auto row = head ? std::optional<int64_t>() : step_of(line);
    if (head || (row && *row <= step)) kept.push_back(std::move(line));
  }
  write_lines(path, kept);
}

std::string versions_compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

}  // namespace

RunFolder::RunFolder(std::string path) : path_(std::move(path)) {
  make_folder(path_);
  make_folder(checkpoints());
  make_folder(plots());
}

RunFolder RunFolder::create(const std::string& parent, const std::string& name) {
  const std::string stem = parent + "/" + name + "-" + local_time("%Y%m%d-%H%M%S");
  make_folder(parent);
  std::error_code error;
  std::string path = stem;
  for (int i = 2; !fs::create_directory(path, error); ++i) {
    TORCH_CHECK(!error, path, " cannot be made: ", error.message());
    path = stem + "-" + std::to_string(i);
  }
  return RunFolder(path);
}

RunFolder RunFolder::open(const std::string& path, std::optional<int64_t> resumed_step) {
  RunFolder folder(path);
  if (resumed_step) {
    truncate_rows(path + "/metrics.csv", *resumed_step, true);
    truncate_rows(path + "/metrics.jsonl", *resumed_step, false);
    truncate_events(path, *resumed_step);
  }
  folder.read_columns();
  return folder;
}

void RunFolder::write_config(const std::string& yaml) const { write_atomically(config(), yaml); }

void RunFolder::write_environment(const std::vector<std::string>& command) const {
  const std::string path = path_ + "/environment.json";
  ordered_json all = ordered_json::array();
  if (fs::exists(path)) {
    std::ifstream file(path);
    all = ordered_json::parse(file, nullptr, false);
    if (!all.is_array()) all = ordered_json::array();
  }
  std::error_code ignored;
  all.push_back({{"command", command},
                 {"folder", fs::current_path(ignored).string()},
                 {"time", local_time("%Y-%m-%dT%H:%M:%S%z")},
                 {"versions",
                  {{"serpentine", SERPENTINE_VERSION},
                   {"torch", TORCH_VERSION},
                   {"compiler", versions_compiler()}}}});

  // an argument need not be UTF-8
  write_atomically(path, all.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
}

void RunFolder::read_columns() {
  const auto lines = lines_of(path_ + "/metrics.csv");
  if (lines.empty()) return;
  std::istringstream header(lines.front());
  std::string column;
  for (int i = 0; std::getline(header, column, ','); ++i) {
    if (i >= 2) columns_.push_back(column);
  }
}

void RunFolder::add_columns(const std::map<std::string, double>& values) {
  const size_t before = columns_.size();
  for (const auto& [name, value] : values) {
    TORCH_CHECK(name.find_first_of(",\"\n") == std::string::npos, "the metric '", name,
                "' cannot be a CSV column");
    if (std::find(columns_.begin(), columns_.end(), name) == columns_.end()) {
      columns_.push_back(name);
    }
  }
  const std::string path = path_ + "/metrics.csv";
  if (columns_.size() == before && csv_) return;
  if (columns_.size() != before || !fs::exists(path)) {
    auto lines = lines_of(path);
    if (lines.empty()) lines.emplace_back();
    lines.front() = csv_header(columns_);
    for (size_t i = 1; i < lines.size(); ++i)
      lines[i] += std::string(columns_.size() - before, ',');
    csv_.reset();
    write_lines(path, lines);
  }
  csv_.emplace(path);
}

void RunFolder::log(int64_t step, const std::map<std::string, double>& values) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const double time = std::chrono::duration<double>(now).count();
  char seconds[32];
  std::snprintf(seconds, sizeof seconds, "%.3f", time);
  add_columns(values);
  std::string row = std::to_string(step) + "," + seconds;
  for (const auto& column : columns_) {
    const auto value = values.find(column);
    row += "," + (value == values.end() ? std::string() : csv_number(value->second));
  }
  csv_->append(row + "\n");

  ordered_json object = {{"step", step}, {"time", std::stod(seconds)}};
  for (const auto& [name, value] : values) {
    object[name] = std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr);
  }
  if (!jsonl_) jsonl_.emplace(path_ + "/metrics.jsonl");
  jsonl_->append(object.dump() + "\n");
  if (!events_) events_.emplace(path_);
  events_->scalars(step, values, time);
}

}  // namespace serpentine
