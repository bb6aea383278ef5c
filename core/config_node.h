// The tree behind Config: YAML values that remember the file, line and column they came from.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "core/config.h"

namespace serpentine {

/// Where a value was written. Line and column count from 1; line 0 means that `file` says it all.
struct Place {
  std::string file;
  int line = 0;
  int column = 0;
  std::string text() const;
};

/// One error: its place and a sentence.
struct Problem {
  Place place;
  std::string message;
};

/// Throws one ConfigError of all problems, a line each, in the order of the files' lines.
void throw_problems(std::vector<Problem> problems);

struct ConfigEntry;

struct ConfigNode {
  enum class Kind { kNull, kScalar, kList, kMapping };
  Kind kind = Kind::kNull;
  std::string text;         // of a scalar
  bool quoted = false;      // a scalar that can only be a string
  bool is_default = false;  // recorded by a reader, not written by anyone
  Place place;
  std::vector<ConfigNode> items;
  std::vector<ConfigEntry> entries;  // in file order

  ConfigNode* find(const std::string& key);
  ConfigNode& set(const std::string& key, ConfigNode value, const Place& key_place);
  std::string describe() const;  // "the number 3", "a list": what came, for errors
};

struct ConfigEntry {
  std::string key;
  Place place;
  ConfigNode value;
};

struct Config::Document {
  ConfigNode root;

  ConfigNode* find(const std::vector<std::string>& path);
  /// The mapping at `path`, made (as a default) where it is absent.
  ConfigNode& make(const std::vector<std::string>& path);
};

/// The problem "path.key: message" at the value's place, or where the mapping around it stands.
Problem problem_at(const Config& config, const std::string& key, const std::string& message);

/// "model.blocks[0].dim": a path for people.
std::string join_path(const std::vector<std::string>& path, const std::string& key = "");

/// Cuts long text, for messages that repeat what a file says.
std::string shorten(const std::string& text);

/// The tree of one YAML document; refuses duplicate keys, tags and a second document.
ConfigNode parse_yaml(const std::string& text, const std::string& name);
std::string write_yaml(const ConfigNode& node);

/// Lays `over` on `base`: mappings merge key by key, anything else is replaced.
void merge(ConfigNode& base, ConfigNode over);
/// Reads a file and its `base:` chain.
ConfigNode load_merged(const std::string& path);
/// Replaces the `base:` of `node` by the merged files; `file` is what the base's path is relative
/// to.
ConfigNode resolve_base(ConfigNode node, const std::string& file);
void apply_overrides(ConfigNode& root, const std::vector<std::string>& overrides);

ConfigNode node_from_json(const nlohmann::json& value, const Place& place);
nlohmann::json json_from_node(const ConfigNode& node);

/// Plain scalars as YAML 1.2's core schema reads them; false leaves `value` alone.
bool parse_scalar(const ConfigNode& node, bool& value);
bool parse_scalar(const ConfigNode& node, int64_t& value);
bool parse_scalar(const ConfigNode& node, double& value);
bool parse_scalar(const ConfigNode& node, std::string& value);
std::string format_double(double value);  // the shortest text that reads back the same

}  // namespace serpentine
