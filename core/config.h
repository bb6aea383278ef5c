// Strict YAML: every key is declared once, with its type, default and meaning, in the options it fills.
//
// An options struct lists its fields in `void fields(Fields& f)`. The same list reads a YAML mapping,
// writes the resolved YAML of a run and exports the JSON Schema that editors use.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace YAML {
class Node;
}

namespace serpentine {

/// Every error found in a YAML file, one a line, each beginning with `file:line:column`.
class ConfigError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What a value must satisfy beside its type.
struct Rule {
  bool required = false;
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices = {};
};

class Config;

/// Visits the fields of an options struct; one implementation reads, one writes, one makes a schema.
class Fields {
 public:
  virtual ~Fields() = default;
  virtual void operator()(const char* key, bool& value, const char* help, Rule rule = {}) = 0;
  virtual void operator()(const char* key, int64_t& value, const char* help, Rule rule = {}) = 0;
  virtual void operator()(const char* key, double& value, const char* help, Rule rule = {}) = 0;
  virtual void operator()(const char* key, std::string& value, const char* help, Rule rule = {}) = 0;
  virtual void operator()(const char* key, std::vector<int64_t>& value, const char* help, Rule rule = {}) = 0;
  virtual void operator()(const char* key, std::vector<double>& value, const char* help, Rule rule = {}) = 0;
  virtual void operator()(const char* key, std::vector<std::string>& value, const char* help, Rule rule = {}) = 0;

  /// A mapping with a `type` of its own, which the registry called `registry` will build.
  virtual void nested(const char* key, Config& value, const char* help, const char* registry, Rule rule = {}) = 0;

  /// A mapping without a `type`: the fields of another options struct.
  template <class Options>
  void group(const char* key, Options& options, const char* help) {
    enter(key, help, [&](Fields& inner) { options.fields(inner); });
  }

 private:
  virtual void enter(const char* key, const char* help, const std::function<void(Fields&)>& visit) = 0;
};

/// One mapping of a YAML document that knows its place. Copies share the document.
class Config {
 public:
  Config();  // an empty mapping

  /// Reads a file, merges its `base:` files below it and applies `key.path=value` overrides.
  /// Refuses duplicate keys. Throws ConfigError.
  static Config load(const std::string& path, const std::vector<std::string>& overrides = {});
  static Config parse(const std::string& text, const std::string& name = "<text>",
                      const std::vector<std::string>& overrides = {});

  bool has(const std::string& key) const;
  Config child(const std::string& key) const;  // an absent key gives an empty mapping
  std::string type() const;                    // the value of `type`; throws when absent

  /// Fills `options` and refuses unknown keys (with the nearest known one), wrong types and values
  /// outside their rule: all errors of the mapping at once. Absent keys keep their defaults.
  template <class Options>
  Options read(Options options = {}) const {
    read_fields([&](Fields& f) { options.fields(f); });
    return options;
  }

  /// Gives an absent key a value that the program knows (a model's horizon from its data).
  void set_default(const std::string& key, const nlohmann::json& value);

  std::string place(const std::string& key = "") const;                  // "file:line:column"
  [[noreturn]] void fail(const std::string& key, const std::string& message) const;
  std::string yaml() const;  // this mapping as text, overrides and defaults included

 private:
  struct Document;
  std::shared_ptr<Document> document_;
  std::vector<std::string> path_;

  friend class FieldReader;
  void read_fields(const std::function<void(Fields&)>& visit) const;
};

/// The JSON Schema (draft 2020-12) of an options struct's fields.
nlohmann::json schema_of(const std::function<void(Fields&)>& visit);

/// The known name nearest to `name` by edit distance, or "" when none is near.
std::string nearest(const std::string& name, const std::vector<std::string>& known);

}  // namespace serpentine
