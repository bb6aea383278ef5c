// Filling an options struct from a mapping, with every error of the mapping.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/config_node.h"

namespace serpentine {

namespace {

using Kind = ConfigNode::Kind;

const char* type_name(bool) { return "true or false"; }
const char* type_name(int64_t) { return "an integer"; }
const char* type_name(double) { return "a number"; }
const char* type_name(const std::string&) { return "a string"; }

ConfigNode to_node(const nlohmann::json& value) {
  ConfigNode node = node_from_json(value, {});
  node.is_default = true;
  return node;
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

/// What `value` breaks of `rule`, or "".
std::string broken(const Rule& rule, double value) {
  if (value >= rule.least && value <= rule.most) return "";
  const bool low = rule.least > -std::numeric_limits<double>::infinity();
  const bool high = rule.most < std::numeric_limits<double>::infinity();
  if (low && high) {
    return "must be from " + format_double(rule.least) + " to " + format_double(rule.most);
  }
  if (low) return "must be at least " + format_double(rule.least);
  if (high) return "must be at most " + format_double(rule.most);
  return "";  // NaN without bounds
}
std::string broken(const Rule& rule, int64_t value) {
  return broken(rule, static_cast<double>(value));
}
std::string broken(const Rule&, bool) { return ""; }
std::string broken(const Rule& rule, const std::string& value) {
  const bool known = rule.choices.empty() || std::find(rule.choices.begin(), rule.choices.end(),
                                                       value) != rule.choices.end();
  if (known) return "";
  const std::string near = nearest(value, rule.choices);
  return "must be one of " + join(rule.choices) +
         (near.empty() ? "" : " (did you mean '" + near + "'?)");
}

}  // namespace

class FieldReader : public Fields {
 public:
  FieldReader(Config config, const CheckNested* nested, std::vector<Problem>& problems)
      : config_(std::move(config)), nested_(nested), problems_(problems) {
    mapping_ = config_.document_->find(config_.path_);
    if (mapping_ != nullptr && mapping_->kind != Kind::kMapping) {
      wrong("", "must be a mapping, got " + mapping_->describe());
      valid_ = false;
    }
  }

  void operator()(const char* key, bool& value, const char*, Rule rule) override {
    scalar(key, value, rule);
  }
  void operator()(const char* key, int64_t& value, const char*, Rule rule) override {
    scalar(key, value, rule);
  }
  void operator()(const char* key, double& value, const char*, Rule rule) override {
    scalar(key, value, rule);
  }
  void operator()(const char* key, std::string& value, const char*, Rule rule) override {
    scalar(key, value, rule);
  }
  void operator()(const char* key, std::vector<int64_t>& value, const char*, Rule rule) override {
    list(key, value, rule);
  }
  void operator()(const char* key, std::vector<double>& value, const char*, Rule rule) override {
    list(key, value, rule);
  }
  void operator()(const char* key, std::vector<std::string>& value, const char*,
                  Rule rule) override {
    list(key, value, rule);
  }

  void nested(const char* key, Config& value, const char*, const char* registry,
              Rule rule) override {
    ConfigNode* node = given(key, rule);
    if (node == nullptr) {
      // a default of the struct becomes part of the document, so that its own defaults show there
      ConfigNode copy = *value.document_->find(value.path_);
      value = config_.child(key);
      if (copy.entries.empty() || !valid_) return;
      copy.is_default = true;
      record(key, std::move(copy));
    } else {
      value = config_.child(key);
      if (node->kind != Kind::kMapping) {
        wrong(key, "must be a mapping with a 'type', got " + node->describe());
        return;
      }
    }
    if (nested_ != nullptr) (*nested_)(registry, value, problems_);
  }

  void nested(const char* key, std::vector<Config>& value, const char*, const char* registry,
              Rule rule) override {
    ConfigNode* node = given(key, rule);
    if (node == nullptr) return;
    if (node->kind != Kind::kList) {
      wrong(key, "must be a list of mappings with a 'type', got " + node->describe());
      return;
    }
    value.clear();
    const size_t size = node->items.size();
    for (size_t i = 0; i < size; ++i) {
      Config item = config_.child(key);
      item.path_.push_back(std::string("[").append(std::to_string(i)) + "]");
      const ConfigNode* found = item.document_->find(item.path_);
      if (found->kind != Kind::kMapping) {
        problems_.push_back(
            problem_at(item, "", "must be a mapping with a 'type', got " + found->describe()));
        continue;
      }
      value.push_back(item);
      if (nested_ != nullptr) (*nested_)(registry, item, problems_);
    }
  }

  /// Reports the keys that no field asked for.
  void finish(bool typed) {
    if (!valid_) return;
    mapping_ = config_.document_->find(config_.path_);
    if (mapping_ == nullptr) return;
    if (typed) known_.emplace_back("type");
    for (const auto& entry : mapping_->entries) {
      const bool known = std::find(known_.begin(), known_.end(), entry.key) != known_.end();
      if (known || entry.value.is_default) continue;
      const std::string near = nearest(entry.key, known_);
      std::string message = join_path(config_.path_, entry.key) + ": unknown key";
      if (!near.empty())
        message += "; did you mean '" + near + "'?";
      else if (known_.empty())
        message += "; none is known here";
      else
        message += "; known keys: " + join(known_);
      problems_.push_back({entry.place, message});
    }
  }

 private:
  void enter(const char* key, const char*, const VisitFields& visit) override {
    known_.emplace_back(key);
    if (!valid_) return;
    FieldReader inner(config_.child(key), nested_, problems_);
    visit(inner);
    inner.finish(false);
  }

  /// The written value of `key`, or nullptr; a default of an earlier reading counts as absent.
  ConfigNode* given(const char* key, const Rule& rule) {
    known_.emplace_back(key);
    if (!valid_) return nullptr;
    mapping_ = config_.document_->find(config_.path_);
    ConfigNode* node = mapping_ == nullptr ? nullptr : mapping_->find(key);
    if (node != nullptr && !node->is_default) return node;
    if (rule.required) wrong("", std::string("'") + key + "' is missing");
    return nullptr;
  }

  void record(const char* key, ConfigNode node) {
    ConfigNode& mapping = config_.document_->make(config_.path_);
    node.place = mapping.place;
    mapping.set(key, std::move(node), mapping.place);
  }

  void wrong(const std::string& key, const std::string& message) {
    problems_.push_back(problem_at(config_, key, message));
  }

  /// Converts one scalar; reports the first thing that is wrong with it.
  template <class T>
  bool convert(const std::string& name, ConfigNode& node, const Rule& rule, T& value) {
    T parsed{};
    if (!parse_scalar(node, parsed)) {
      std::string hint;
      if constexpr (std::is_same_v<T, std::string>) {
        if (node.kind == Kind::kScalar)
          hint = "; quote it to make it one: \"" + shorten(node.text) + "\"";
      }
      problems_.push_back({node.place, name + ": must be " + type_name(parsed) + ", got " +
                                           node.describe() + hint});
      return false;
    }
    const std::string why = broken(rule, parsed);
    if (!why.empty()) {
      problems_.push_back({node.place, name + ": " + why + ", got " + node.describe()});
      return false;
    }
    value = std::move(parsed);
    return true;
  }

  template <class T>
  void refuse_empty(const std::string& name, const ConfigNode& node, const Rule& rule,
                    const T& value) {
    if constexpr (std::is_same_v<T, std::string>) {
      if (rule.required && value.empty()) problems_.push_back({node.place, name + " is empty"});
    }
  }

  /// A shell strips quotes, so an override's number is text where text is asked for.
  template <class T>
  static void relax(ConfigNode& node) {
    if constexpr (std::is_same_v<T, std::string>) {
      if (node.kind == Kind::kScalar && node.place.line == 0) node.quoted = true;
    }
  }

  template <class T>
  void scalar(const char* key, T& value, const Rule& rule) {
    ConfigNode* node = given(key, rule);
    if (node != nullptr) {
      relax<T>(*node);
      const std::string name = join_path(config_.path_, key);
      if (convert(name, *node, rule, value)) refuse_empty(name, *node, rule, value);
    } else if (valid_ && !rule.required) {
      record(key, to_node(value));
    }
  }

  template <class T>
  void list(const char* key, std::vector<T>& value, const Rule& rule) {
    ConfigNode* node = given(key, rule);
    if (node == nullptr) {
      if (valid_ && !rule.required) record(key, to_node(value));
      return;
    }
    if (node->kind == Kind::kScalar) {  // one word is a list of one
      ConfigNode one = *node;
      node->kind = Kind::kList;
      node->items = {std::move(one)};
    }
    if (node->kind != Kind::kList) {
      wrong(key, std::string("must be a list, got ") + node->describe());
      return;
    }
    std::vector<T> parsed;
    for (size_t i = 0; i < node->items.size(); ++i) {
      T element{};
      relax<T>(node->items[i]);
      const std::string name = join_path(config_.path_, key) + "[" + std::to_string(i) + "]";
      if (convert(name, node->items[i], rule, element)) parsed.push_back(element);
    }
    value = std::move(parsed);
  }

  Config config_;
  const CheckNested* nested_;
  std::vector<Problem>& problems_;
  ConfigNode* mapping_ = nullptr;
  bool valid_ = true;
  std::vector<std::string> known_;
};

void Config::check_fields(const VisitFields& visit, bool typed, const CheckNested& nested,
                          std::vector<Problem>& problems) const {
  FieldReader reader(*this, nested ? &nested : nullptr, problems);
  visit(reader);
  reader.finish(typed);
}

void Config::read_fields(const VisitFields& visit, bool typed) const {
  std::vector<Problem> problems;
  check_fields(visit, typed, {}, problems);
  throw_problems(std::move(problems));
}

}  // namespace serpentine
