#include "core/config_node.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>

namespace serpentine {

std::string Place::text() const {
  if (line == 0) return file;
  return file + ":" + std::to_string(line) + ":" + std::to_string(column);
}

void throw_problems(std::vector<Problem> problems) {
  if (problems.empty()) return;

  // files keep the order in which they were met; lines of one file are sorted
  std::vector<std::string> files;
  for (const auto& problem : problems) files.push_back(problem.place.file);
  const auto rank = [&](const Problem& p) {
    const auto first = std::find(files.begin(), files.end(), p.place.file);
    return std::make_tuple(first - files.begin(), p.place.line, p.place.column);
  };
  std::stable_sort(problems.begin(), problems.end(),
                   [&](const Problem& a, const Problem& b) { return rank(a) < rank(b); });
  std::string text;
  for (const auto& problem : problems) {
    if (!text.empty()) text += "\n";
    text += problem.place.text() + ": " + problem.message;
  }
  throw ConfigError(text);
}

ConfigNode* ConfigNode::find(const std::string& key) {
  for (auto& entry : entries) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

ConfigNode& ConfigNode::set(const std::string& key, ConfigNode value, const Place& key_place) {
  kind = Kind::kMapping;
  if (ConfigNode* present = find(key)) {
    *present = std::move(value);
    return *present;
  }
  entries.push_back(ConfigEntry{key, key_place, std::move(value)});
  return entries.back().value;
}

std::string ConfigNode::describe() const {
  switch (kind) {
    case Kind::kNull:
      return "nothing";
    case Kind::kList:
      return "a list";
    case Kind::kMapping:
      return "a mapping";
    case Kind::kScalar:
      break;
  }
  return quoted ? std::string("'").append(shorten(text)) + "'" : shorten(text);
}

ConfigNode* Config::Document::find(const std::vector<std::string>& path) {
  ConfigNode* node = &root;
  for (const auto& part : path) {
    if (!part.empty() && part.front() == '[') {
      const size_t index = std::stoul(part.substr(1));
      node = index < node->items.size() ? &node->items[index] : nullptr;
    } else {
      node = node->find(part);
    }
    if (node == nullptr) return nullptr;
  }
  return node;
}

ConfigNode& Config::Document::make(const std::vector<std::string>& path) {
  ConfigNode* node = &root;
  std::vector<std::string> so_far;
  for (const auto& part : path) {
    so_far.push_back(part);
    ConfigNode* next = find(so_far);
    if (next == nullptr) {
      ConfigNode mapping;
      mapping.kind = ConfigNode::Kind::kMapping;
      mapping.is_default = true;
      mapping.place = node->place;
      next = &node->set(part, std::move(mapping), node->place);
    }
    node = next;
  }
  return *node;
}

std::string join_path(const std::vector<std::string>& path, const std::string& key) {
  std::string text;
  const auto add = [&](const std::string& part) {
    if (part.empty()) return;
    if (!text.empty() && part.front() != '[') text += ".";
    text += shorten(part);
  };
  for (const auto& part : path) add(part);
  add(key);
  return text;
}

std::string shorten(const std::string& text) {
  constexpr size_t kMost = 80;
  if (text.size() <= kMost) return text;

  // never cut a UTF-8 character
  size_t end = kMost - 3;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
  return text.substr(0, end) + "...";
}

bool parse_scalar(const ConfigNode& node, bool& value) {
  if (node.kind != ConfigNode::Kind::kScalar || node.quoted) return false;
  const std::string& text = node.text;
  const bool yes = text == "true" || text == "True" || text == "TRUE";
  const bool no = text == "false" || text == "False" || text == "FALSE";
  if (yes || no) value = yes;
  return yes || no;
}

namespace {

template <class Number>
bool parse_number(const ConfigNode& node, Number& value) {
  if (node.kind != ConfigNode::Kind::kScalar || node.quoted || node.text.empty()) return false;
  const char* begin = node.text.data();
  const char* end = begin + node.text.size();
  if (*begin == '+') ++begin;

  // from_chars knows inf and nan, which YAML writes with a dot
  const char* digits =
      begin != end && *begin == '-' && begin == node.text.data() ? begin + 1 : begin;
  if (digits == end || !((*digits >= '0' && *digits <= '9') || *digits == '.')) return false;
  Number parsed{};
  const auto [stop, error] = std::from_chars(begin, end, parsed);
  if (error != std::errc() || stop != end) return false;
  value = parsed;
  return true;
}

}  // namespace

bool parse_scalar(const ConfigNode& node, int64_t& value) { return parse_number(node, value); }

bool parse_scalar(const ConfigNode& node, double& value) {
  if (parse_number(node, value)) return true;
  if (node.kind != ConfigNode::Kind::kScalar || node.quoted) return false;
  std::string text = node.text;
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const double infinity = std::numeric_limits<double>::infinity();
  if (text == ".inf" || text == "+.inf")
    value = infinity;
  else if (text == "-.inf")
    value = -infinity;
  else if (text == ".nan")
    value = std::numeric_limits<double>::quiet_NaN();
  else
    return false;
  return true;
}

bool parse_scalar(const ConfigNode& node, std::string& value) {
  if (node.kind != ConfigNode::Kind::kScalar) return false;
  bool truth = false;
  double number = 0;
  if (parse_scalar(node, truth) || parse_scalar(node, number)) return false;
  value = node.text;
  return true;
}

std::string format_double(double value) {
  if (std::isnan(value)) return ".nan";
  if (std::isinf(value)) return value > 0 ? ".inf" : "-.inf";
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
  return std::string(buffer, result.ptr);
}

}  // namespace serpentine
