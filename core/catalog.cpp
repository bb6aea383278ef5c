#include "core/catalog.h"

#include <nlohmann/json.hpp>

#include "core/config_node.h"

namespace serpentine {

using nlohmann::json;

std::string unknown_name(const std::string& kind, const std::string& name,
                         const std::vector<std::string>& known) {
  std::string message = std::string("unknown ").append(kind) + " '" + shorten(name) + "'";
  const std::string near = nearest(name, known);
  if (!near.empty()) message += "; did you mean '" + near + "'?";
  message += " Known:";
  for (const auto& one : known) message += " " + one;
  return message;
}

void Catalog::check_nested(const std::string& kind, const Config& config,
                           std::vector<Problem>& problems) const {
  const auto known = kinds_.find(kind);
  if (known == kinds_.end()) throw std::logic_error("no registry is called '" + kind + "'");
  std::string type;
  try {
    type = config.type();
  } catch (const ConfigError&) {
    const bool given = config.has("type");
    problems.push_back(
        problem_at(config, given ? "type" : "", given ? "must be a name" : "'type' is missing"));
    return;
  }
  const auto entry = known->second.find(type);
  if (entry == known->second.end()) {
    std::vector<std::string> names;
    for (const auto& [name, visit] : known->second) names.push_back(name);
    problems.push_back(problem_at(config, "type", unknown_name(kind, type, names)));
    return;
  }
  const auto nested = [this](const std::string& inner, const Config& at,
                             std::vector<Problem>& found) { check_nested(inner, at, found); };
  config.check_fields(entry->second, true, nested, problems);
}

void Catalog::check_all(const Config& root, const VisitFields& visit) const {
  std::vector<Problem> problems;
  const auto nested = [this](const std::string& kind, const Config& at,
                             std::vector<Problem>& found) { check_nested(kind, at, found); };
  root.check_fields(visit, false, nested, problems);
  throw_problems(std::move(problems));
}

namespace {

/// The schema of a file that another completes: no key is required.
json partial(const json& schema) {
  if (schema.is_array()) {
    json all = json::array();
    for (const auto& item : schema) all.push_back(partial(item));
    return all;
  }
  if (!schema.is_object()) return schema;
  json all = json::object();
  for (const auto& [key, value] : schema.items()) {
    if (key == "required" && value.is_array()) continue;
    if (key == "if") {
      all[key] = value;  // the condition on `type` stays
    } else if (key == "$ref" && value.is_string()) {
      const std::string prefix = "#/$defs/";
      all[key] = prefix + "partial/" + value.get<std::string>().substr(prefix.size());
    } else {
      all[key] = partial(value);
    }
  }
  return all;
}

/// Any of the named mappings, told apart by `type`.
json choice(const std::map<std::string, VisitFields>& entries) {
  json names = json::array();
  json branches = json::array();
  for (const auto& [name, visit] : entries) {
    names.push_back(name);
    json schema = schema_of(visit, true);
    schema["properties"]["type"] = {{"const", name}};
    const json condition = {{"properties", {{"type", {{"const", name}}}}},
                            {"required", json::array({"type"})}};
    branches.push_back({{"if", condition}, {"then", std::move(schema)}});
  }
  json all = {{"type", "object"},
              {"properties", {{"type", {{"enum", std::move(names)}}}}},
              {"required", json::array({"type"})}};
  if (!branches.empty()) all["allOf"] = std::move(branches);
  return all;
}

}  // namespace

json Catalog::schema_all(const std::string& title, const VisitFields& visit) const {
  json defs = json::object();
  for (const auto& [kind, entries] : kinds_) defs[kind] = choice(entries);
  defs["document"] = schema_of(visit);
  defs["document"]["properties"]["base"] = {
      {"type", "string"},
      {"description", "A file that this one completes and overrides, relative to this one."}};
  json loose = json::object();
  for (const auto& [name, schema] : defs.items()) loose[name] = partial(schema);
  defs["partial"] = std::move(loose);
  return {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
          {"title", title},
          {"type", "object"},
          {"if", {{"required", json::array({"base"})}}},
          {"then", {{"$ref", "#/$defs/partial/document"}}},
          {"else", {{"$ref", "#/$defs/document"}}},
          {"$defs", std::move(defs)}};
}

}  // namespace serpentine
