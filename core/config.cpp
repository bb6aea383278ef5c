#include "core/config.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/config_node.h"

namespace serpentine {

Config::Config() : document_(std::make_shared<Document>()) {
  document_->root.kind = ConfigNode::Kind::kMapping;
  document_->root.place.file = "<empty>";
}

Config Config::load(const std::string& path, const std::vector<std::string>& overrides) {
  Config config;
  config.document_->root = load_merged(path);
  apply_overrides(config.document_->root, overrides);
  return config;
}

Config Config::parse(const std::string& text, const std::string& name,
                     const std::vector<std::string>& overrides) {
  Config config;
  config.document_->root = resolve_base(parse_yaml(text, name), name);
  apply_overrides(config.document_->root, overrides);
  return config;
}

bool Config::has(const std::string& key) const {
  ConfigNode* mapping = document_->find(path_);
  const ConfigNode* value = mapping == nullptr ? nullptr : mapping->find(key);
  return value != nullptr && !value->is_default;
}

Config Config::child(const std::string& key) const {
  Config config = *this;
  config.path_.push_back(key);
  return config;
}

std::string Config::type() const {
  ConfigNode* mapping = document_->find(path_);
  const ConfigNode* value = mapping == nullptr ? nullptr : mapping->find("type");
  if (value == nullptr) fail("", "'type' is missing");
  std::string text;
  if (!parse_scalar(*value, text)) fail("type", "must be a name, got " + value->describe());
  return text;
}

void Config::set_default(const std::string& key, const nlohmann::json& value) {
  if (has(key)) return;
  ConfigNode& mapping = document_->make(path_);
  if (mapping.kind != ConfigNode::Kind::kMapping) {
    fail("", "must be a mapping, got " + mapping.describe());
  }
  mapping.set(key, node_from_json(value, mapping.place), mapping.place);
}

Problem problem_at(const Config& config, const std::string& key, const std::string& message) {
  std::vector<std::string> path = config.path_;
  if (!key.empty()) path.push_back(key);
  const std::string name = join_path(path);

  // an absent value is reported where the mapping around it stands
  ConfigNode* node = config.document_->find(path);
  while (node == nullptr) {
    path.pop_back();
    node = config.document_->find(path);
  }
  return {node->place, name.empty() ? message : name + ": " + message};
}

std::string Config::place(const std::string& key) const {
  return problem_at(*this, key, "").place.text();
}

void Config::fail(const std::string& key, const std::string& message) const {
  throw_problems({problem_at(*this, key, message)});
  throw ConfigError(message);  // not reached
}

std::string Config::yaml() const {
  const ConfigNode* node = document_->find(path_);
  return node == nullptr ? "{}\n" : write_yaml(*node);
}

namespace {

/// Insertions, deletions, substitutions and swaps of neighbours that turn one word into the other.
size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<size_t>> cost(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = i + j;
        continue;
      }
      const size_t differ = a[i - 1] == b[j - 1] ? 0 : 1;
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + differ});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

}  // namespace

std::string nearest(const std::string& name, const std::vector<std::string>& known) {
  std::string best;
  size_t least = std::string::npos;
  for (const auto& candidate : known) {
    const size_t longer = std::max(name.size(), candidate.size());
    if (longer > 2 * candidate.size() + 2) continue;
    const size_t distance = edit_distance(name, candidate);
    const size_t allowed = std::max<size_t>(1, longer / 3);
    if (distance <= allowed && distance < longer && distance < least) {
      least = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace serpentine
