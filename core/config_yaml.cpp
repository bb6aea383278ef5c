// YAML text to tree and back. yaml-cpp's events keep every key, so that duplicates can be refused.
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "core/config_node.h"

namespace serpentine {
namespace {

constexpr int kMostDepth = 200;        // of nested values; deeper text is an attack or a mistake
constexpr size_t kMostNodes = 200000;  // aliases can multiply a short text beyond memory

int height(const ConfigNode& node) {
  int most = 0;
  for (const auto& item : node.items) most = std::max(most, height(item));
  for (const auto& entry : node.entries) most = std::max(most, height(entry.value));
  return most + 1;
}

size_t count(const ConfigNode& node) {
  size_t all = 1;
  for (const auto& item : node.items) all += count(item);
  for (const auto& entry : node.entries) all += count(entry.value);
  return all;
}

class Builder : public YAML::EventHandler {
 public:
  explicit Builder(std::string name) : name_(std::move(name)) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) stop(mark, "a second document begins; only one is read");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(make(ConfigNode::Kind::kNull, mark), anchor);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    ConfigNode node = make(ConfigNode::Kind::kScalar, mark);
    node.text = value;
    node.quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
    if (!node.quoted) check_tag(mark, tag);
    const bool null =
        value.empty() || value == "~" || value == "null" || value == "Null" || value == "NULL";
    if (!node.quoted && null) node.kind = ConfigNode::Kind::kNull;
    add(std::move(node), anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto known = anchors_.find(anchor);
    if (known == anchors_.end()) stop(mark, "an alias stands inside the value that it names");
    if (height(known->second) + static_cast<int>(open_.size()) > kMostDepth) too_deep(mark);
    nodes_ += count(known->second);
    check_size(mark);
    add(known->second, 0);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value /*style*/) override {
    start(ConfigNode::Kind::kList, mark, tag, anchor);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value /*style*/) override {
    start(ConfigNode::Kind::kMapping, mark, tag, anchor);
  }
  void OnSequenceEnd() override { end(); }
  void OnMapEnd() override { end(); }

  ConfigNode root;
  std::vector<Problem> problems;

 private:
  struct Open {
    ConfigNode node;
    YAML::anchor_t anchor = 0;
    bool has_key = false;
    std::string key;
    Place key_place;
    std::map<std::string, int> lines;  // of the keys so far
  };

  Place place(const YAML::Mark& mark) const { return {name_, mark.line + 1, mark.column + 1}; }
  [[noreturn]] void stop(const YAML::Mark& mark, const std::string& message) {
    problems.push_back({place(mark), message});
    throw_problems(problems);
    throw ConfigError(message);  // not reached
  }
  [[noreturn]] void too_deep(const YAML::Mark& mark) {
    stop(mark, "values nest deeper than " + std::to_string(kMostDepth) + " levels");
  }
  void check_size(const YAML::Mark& mark) {
    if (nodes_ > kMostNodes) stop(mark, "more than " + std::to_string(kMostNodes) + " values");
  }
  void check_tag(const YAML::Mark& mark, const std::string& tag) {
    if (tag.empty() || tag == "?" || tag == "!") return;
    problems.push_back({place(mark), "the tag " + shorten(tag) + " is not supported"});
  }
  ConfigNode make(ConfigNode::Kind kind, const YAML::Mark& mark) {
    ++nodes_;
    check_size(mark);
    ConfigNode node;
    node.kind = kind;
    node.place = place(mark);
    return node;
  }
  void start(ConfigNode::Kind kind, const YAML::Mark& mark, const std::string& tag,
             YAML::anchor_t anchor) {
    check_tag(mark, tag);
    if (static_cast<int>(open_.size()) >= kMostDepth) too_deep(mark);
    Open open;
    open.node = make(kind, mark);
    open.anchor = anchor;
    open_.push_back(std::move(open));
  }
  void end() {
    Open done = std::move(open_.back());
    open_.pop_back();
    add(std::move(done.node), done.anchor);
  }

  void add(ConfigNode node, YAML::anchor_t anchor) {
    if (anchor != 0) anchors_[anchor] = node;
    if (open_.empty()) {
      root = std::move(node);
    } else if (open_.back().node.kind == ConfigNode::Kind::kList) {
      open_.back().node.items.push_back(std::move(node));
    } else if (!open_.back().has_key) {
      take_key(node);
    } else {
      take_value(std::move(node));
    }
  }
  void take_key(const ConfigNode& node) {
    Open& open = open_.back();
    open.has_key = true;
    open.key = node.text;
    open.key_place = node.place;
    const bool text = node.kind == ConfigNode::Kind::kScalar || !node.text.empty();
    if (!text) problems.push_back({node.place, "a key must be text, got " + node.describe()});
  }
  void take_value(ConfigNode node) {
    Open& open = open_.back();
    open.has_key = false;
    const auto [first, fresh] = open.lines.emplace(open.key, open.key_place.line);
    if (!fresh) {
      problems.push_back({open.key_place, current_path() +
                                              ": duplicate key; it was first given on line " +
                                              std::to_string(first->second)});
      return;
    }
    open.node.entries.push_back({open.key, open.key_place, std::move(node)});
  }
  std::string current_path() const {
    std::vector<std::string> path;
    for (const auto& open : open_) {
      if (open.node.kind == ConfigNode::Kind::kMapping)
        path.push_back(open.key);
      else
        path.push_back(std::string("[").append(std::to_string(open.node.items.size())) + "]");
    }
    return join_path(path);
  }

  std::string name_;
  int documents_ = 0;
  size_t nodes_ = 0;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, ConfigNode> anchors_;
};

/// The emitter would write these as they are, and a parser takes some for white space.
bool has_control(const std::string& text) {
  return std::any_of(text.begin(), text.end(),
                     [](unsigned char c) { return c < 0x20 || c == 0x7F; });
}

void emit(YAML::Emitter& out, const ConfigNode& node) {
  switch (node.kind) {
    case ConfigNode::Kind::kNull:
      out << YAML::Null;
      return;
    case ConfigNode::Kind::kScalar:
      if (node.quoted || has_control(node.text)) out << YAML::DoubleQuoted;
      out << node.text;
      return;
    case ConfigNode::Kind::kList: {
      const bool plain =
          std::none_of(node.items.begin(), node.items.end(),
                       [](const ConfigNode& n) { return n.kind == ConfigNode::Kind::kMapping; });
      if (plain) out << YAML::Flow;
      out << YAML::BeginSeq;
      for (const auto& item : node.items) emit(out, item);
      out << YAML::EndSeq;
      return;
    }
    case ConfigNode::Kind::kMapping:
      if (node.entries.empty()) out << YAML::Flow;
      out << YAML::BeginMap;
      for (const auto& entry : node.entries) {
        out << YAML::Key << entry.key << YAML::Value;
        emit(out, entry.value);
      }
      out << YAML::EndMap;
      return;
  }
}

}  // namespace

ConfigNode parse_yaml(const std::string& text, const std::string& name) {
  Builder builder(name);
  std::istringstream stream(text);
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    const Place place{name, error.mark.line + 1, error.mark.column + 1};
    builder.problems.push_back({place, "not valid YAML: " + error.msg});
  }
  throw_problems(builder.problems);
  ConfigNode root = std::move(builder.root);
  if (root.place.line == 0) root.place = Place{name, 1, 1};
  return root;
}

std::string write_yaml(const ConfigNode& node) {
  YAML::Emitter out;
  emit(out, node);
  return std::string(out.c_str()) + "\n";
}

}  // namespace serpentine
