// Between the tree and JSON, and the JSON Schema of an options struct.
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/config_node.h"

namespace serpentine {
namespace {

using nlohmann::json;
using Kind = ConfigNode::Kind;

class FieldSchema : public Fields {
 public:
  void operator()(const char* key, bool& value, const char* help, Rule rule) override {
    add(key, "boolean", value, help, rule);
  }
  void operator()(const char* key, int64_t& value, const char* help, Rule rule) override {
    add(key, "integer", value, help, rule);
  }
  void operator()(const char* key, double& value, const char* help, Rule rule) override {
    add(key, "number", value, help, rule);
  }
  void operator()(const char* key, std::string& value, const char* help, Rule rule) override {
    add(key, "string", value, help, rule);
  }
  void operator()(const char* key, std::vector<int64_t>& value, const char* help,
                  Rule rule) override {
    add_list(key, "integer", value, help, rule);
  }
  void operator()(const char* key, std::vector<double>& value, const char* help,
                  Rule rule) override {
    add_list(key, "number", value, help, rule);
  }
  void operator()(const char* key, std::vector<std::string>& value, const char* help,
                  Rule rule) override {
    add_list(key, "string", value, help, rule);
  }
  void nested(const char* key, Config&, const char* help, const char* registry,
              Rule rule) override {
    json property = {{"$ref", std::string("#/$defs/") + registry}};
    place(key, std::move(property), help, rule);
  }
  void nested(const char* key, std::vector<Config>&, const char* help, const char* registry,
              Rule rule) override {
    const json item = {{"$ref", std::string("#/$defs/") + registry}};
    place(key, {{"type", "array"}, {"items", item}}, help, rule);
  }

  json properties = json::object();
  json required = json::array();

  json schema() const {
    json all = {{"type", "object"}, {"properties", properties}, {"additionalProperties", false}};
    if (!required.empty()) all["required"] = required;
    return all;
  }

 private:
  void enter(const char* key, const char* help, const VisitFields& visit) override {
    FieldSchema inner;
    visit(inner);
    place(key, inner.schema(), help, {});
  }
  void place(const char* key, json property, const char* help, const Rule& rule) {
    property["description"] = help;
    properties[key] = std::move(property);
    if (rule.required) required.push_back(key);
  }
  static json bounded(const char* type, const Rule& rule) {
    json schema = {{"type", type}};
    const bool whole = std::string(type) == "integer";
    const auto number = [&](double bound) -> json {
      if (whole && bound == std::floor(bound) && std::abs(bound) < 9e15) return std::llround(bound);
      return bound;
    };
    if (std::isfinite(rule.least)) schema["minimum"] = number(rule.least);
    if (std::isfinite(rule.most)) schema["maximum"] = number(rule.most);
    if (!rule.choices.empty()) schema["enum"] = rule.choices;
    return schema;
  }
  void add(const char* key, const char* type, const json& value, const char* help,
           const Rule& rule) {
    json schema = bounded(type, rule);
    const bool finite = !value.is_number_float() || std::isfinite(value.get<double>());
    if (!rule.required && finite) schema["default"] = value;
    place(key, std::move(schema), help, rule);
  }
  void add_list(const char* key, const char* type, const json& value, const char* help,
                const Rule& rule) {
    json schema = {{"type", "array"}, {"items", bounded(type, rule)}};
    if (!rule.required) schema["default"] = value;
    place(key, std::move(schema), help, rule);
  }
};

}  // namespace

json schema_of(const VisitFields& visit, bool typed) {
  FieldSchema fields;
  visit(fields);
  if (typed) {
    fields.properties["type"] = {{"type", "string"}};
    fields.required.push_back("type");
  }
  return fields.schema();
}

ConfigNode node_from_json(const json& value, const Place& place) {
  ConfigNode node;
  node.place = place;
  if (value.is_null()) return node;
  if (value.is_object()) {
    node.kind = Kind::kMapping;
    for (const auto& [key, item] : value.items()) node.set(key, node_from_json(item, place), place);
  } else if (value.is_array()) {
    node.kind = Kind::kList;
    for (const auto& item : value) node.items.push_back(node_from_json(item, place));
  } else {
    node.kind = Kind::kScalar;
    if (value.is_string()) {
      node.text = value.get<std::string>();
      std::string plain;
      node.quoted = node.text.empty() || !parse_scalar(node, plain) || node.text == "~" ||
                    node.text == "null" || node.text == "Null" || node.text == "NULL";
    } else {
      node.text = value.is_number_float() ? format_double(value.get<double>()) : value.dump();
    }
  }
  return node;
}

json json_from_node(const ConfigNode& node) {
  bool truth = false;
  int64_t whole = 0;
  double number = 0;
  switch (node.kind) {
    case Kind::kNull:
      return nullptr;
    case Kind::kScalar:
      if (parse_scalar(node, truth)) return truth;
      if (parse_scalar(node, whole)) return whole;
      if (parse_scalar(node, number)) return number;
      return node.text;
    case Kind::kList: {
      json list = json::array();
      for (const auto& item : node.items) list.push_back(json_from_node(item));
      return list;
    }
    case Kind::kMapping:
      break;
  }
  json mapping = json::object();
  for (const auto& entry : node.entries) mapping[entry.key] = json_from_node(entry.value);
  return mapping;
}

}  // namespace serpentine
