// Where a document comes from: files, the `base:` files below them, and overrides above them.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/config_node.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;
using Kind = ConfigNode::Kind;

constexpr uintmax_t kMostBytes = 4194304;  // a configuration that is longer is some other file

/// Throws a sentence without a place: the caller knows who asked for the file.
std::string read_text(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) throw ConfigError("is a folder, not a file");
  if (fs::exists(path, error) && !fs::is_regular_file(path, error)) {
    throw ConfigError("is not a regular file");
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) throw ConfigError(std::string("cannot be opened: ") + std::strerror(errno));
  if (fs::file_size(path, error) > kMostBytes) throw ConfigError("is larger than 4 MiB");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string canonical(const std::string& path) {
  std::error_code error;
  const fs::path full = fs::weakly_canonical(path, error);
  return error ? path : full.string();
}

ConfigNode resolve(ConfigNode node, const std::string& file, std::vector<std::string> chain) {
  if (node.kind == Kind::kNull) node.kind = Kind::kMapping;  // an empty file
  if (node.kind != Kind::kMapping) {
    throw_problems({{node.place, "the document must be a mapping, got " + node.describe()}});
  }
  const ConfigNode* named = node.find("base");
  if (named == nullptr) return node;
  const Place place = named->place;
  std::string base;
  if (!parse_scalar(*named, base) || base.empty()) {
    throw_problems({{place, "base: must be the path of a file, got " + named->describe()}});
  }
  const std::string path = (fs::path(file).parent_path() / base).string();
  chain.push_back(canonical(file));
  if (std::find(chain.begin(), chain.end(), canonical(path)) != chain.end()) {
    throw_problems({{place, "base: '" + base + "' leads back to itself"}});
  }
  std::string text;
  try {
    text = read_text(path);
  } catch (const ConfigError& error) {
    throw_problems({{place, "base: '" + path + "' " + error.what()}});
  }
  ConfigNode below = resolve(parse_yaml(text, path), path, std::move(chain));
  const auto is_base = [](const ConfigEntry& entry) { return entry.key == "base"; };
  node.entries.erase(std::remove_if(node.entries.begin(), node.entries.end(), is_base),
                     node.entries.end());
  merge(below, std::move(node));
  return below;
}

void set_place(ConfigNode& node, const Place& place) {
  node.place = place;
  for (auto& item : node.items) set_place(item, place);
  for (auto& entry : node.entries) {
    entry.place = place;
    set_place(entry.value, place);
  }
}

/// The value of an override. What is not an unquoted number or truth value is text, as in a file.
/// A shell takes quotes away, so what YAML would need them for is text too: , | % * @ and the like.
ConfigNode override_value(const std::string& text, const Place& place) {
  ConfigNode value;
  bool is_text = text.empty();
  const bool brackets = !text.empty() && (text.front() == '[' || text.front() == '{');
  try {
    value = parse_yaml(text, place.file);
    const bool nothing =
        value.kind == Kind::kNull || (value.kind == Kind::kScalar && value.text.empty());
    const bool written = text == "null" || text == "~" || text == "''" || text == "\"\"";
    is_text = is_text || (nothing && !written) ||
              (!brackets && value.kind != Kind::kScalar && value.kind != Kind::kNull);
  } catch (const ConfigError&) {
    if (brackets) throw_problems({{place, "the value is not valid YAML"}});
    is_text = true;
  }
  if (is_text) {
    value = ConfigNode();
    value.kind = Kind::kScalar;
    value.text = text;
    value.quoted = true;
  }
  set_place(value, place);
  return value;
}

void apply_override(ConfigNode& root, const std::string& given) {
  const Place place{"override '" + shorten(given) + "'", 0, 0};
  const size_t equals = given.find('=');
  const std::string path = given.substr(0, equals);
  if (equals == std::string::npos || path.empty() || path.front() == '.' || path.back() == '.' ||
      path.find("..") != std::string::npos) {
    throw_problems({{place, "an override has the form key.path=value"}});
  }
  ConfigNode value = override_value(given.substr(equals + 1), place);
  ConfigNode* node = &root;
  std::vector<std::string> parts;
  std::istringstream stream(path);
  for (std::string part; std::getline(stream, part, '.');) parts.push_back(part);
  if (parts.size() > 50) throw_problems({{place, "the key has more than 50 parts"}});
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    ConfigNode* next = node->find(parts[i]);
    if (next == nullptr || next->kind == Kind::kNull) {
      ConfigNode mapping;
      mapping.kind = Kind::kMapping;
      mapping.place = place;
      next = &node->set(parts[i], std::move(mapping), place);
    }
    if (next->kind != Kind::kMapping) {
      const std::vector<std::string> walked(parts.begin(),
                                            parts.begin() + static_cast<long>(i) + 1);
      throw_problems({{place, join_path(walked) + " is " + next->describe() + ", not a mapping"}});
    }
    node = next;
  }
  const auto old =
      std::find_if(node->entries.begin(), node->entries.end(),
                   [&](const ConfigEntry& entry) { return entry.key == parts.back(); });
  if (old != node->entries.end()) old->place = place;
  node->set(parts.back(), std::move(value), place);
}

}  // namespace

void merge(ConfigNode& base, ConfigNode over) {
  if (base.kind != Kind::kMapping || over.kind != Kind::kMapping) {
    base = std::move(over);
    return;
  }
  base.place = over.place;
  for (auto& entry : over.entries) {
    const auto below = std::find_if(base.entries.begin(), base.entries.end(),
                                    [&](const ConfigEntry& e) { return e.key == entry.key; });
    if (below == base.entries.end()) {
      base.entries.push_back(std::move(entry));
    } else {
      below->place = entry.place;
      merge(below->value, std::move(entry.value));
    }
  }
}

ConfigNode load_merged(const std::string& path) {
  std::string text;
  try {
    text = read_text(path);
  } catch (const ConfigError& error) {
    throw ConfigError(path + ": " + error.what());
  }
  return resolve(parse_yaml(text, path), path, {});
}

ConfigNode resolve_base(ConfigNode node, const std::string& file) {
  return resolve(std::move(node), file, {});
}

void apply_overrides(ConfigNode& root, const std::vector<std::string>& overrides) {
  std::string text;
  for (const auto& given : overrides) {
    try {
      apply_override(root, given);
    } catch (const ConfigError& error) {
      text += (text.empty() ? "" : "\n") + std::string(error.what());
    }
  }
  if (!text.empty()) throw ConfigError(text);
}

}  // namespace serpentine
