// Strict YAML: every key is declared once, with its type, default and meaning, in the options it
// fills.
//
// An options struct lists its fields in `void fields(Fields& f)`. The same list reads a YAML
// mapping, writes the resolved YAML of a run and exports the JSON Schema that editors use.
// core/catalog.h checks a whole document in one go.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace serpentine {

/// Every error found in a YAML file, one a line, each beginning with `file:line:column`.
class ConfigError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What a value must satisfy beside its type. Bounds and choices hold for each element of a list.
struct Rule {
  bool required = false;
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices = {};
};

class Config;

/// Visits the fields of an options struct; one implementation reads, one makes a schema.
class Fields {
 public:
  virtual ~Fields() = default;
  virtual void operator()(const char* key, bool& value, const char* help, Rule rule = {}) = 0;
  virtual void operator()(const char* key, int64_t& value, const char* help, Rule rule = {}) = 0;
  virtual void operator()(const char* key, double& value, const char* help, Rule rule = {}) = 0;
  virtual void operator()(const char* key, std::string& value, const char* help,
                          Rule rule = {}) = 0;
  virtual void operator()(const char* key, std::vector<int64_t>& value, const char* help,
                          Rule rule = {}) = 0;
  virtual void operator()(const char* key, std::vector<double>& value, const char* help,
                          Rule rule = {}) = 0;
  virtual void operator()(const char* key, std::vector<std::string>& value, const char* help,
                          Rule rule = {}) = 0;

  /// A mapping with a `type` of its own, which the registry called `registry` will build.
  /// An absent key leaves an empty mapping, or the value that the struct gave it.
  virtual void nested(const char* key, Config& value, const char* help, const char* registry,
                      Rule rule = {}) = 0;
  /// A list of such mappings.
  virtual void nested(const char* key, std::vector<Config>& value, const char* help,
                      const char* registry, Rule rule = {}) = 0;

  /// A mapping without a `type`: the fields of another options struct.
  template <class Options>
  void group(const char* key, Options& options, const char* help) {
    enter(key, help, [&](Fields& inner) { options.fields(inner); });
  }

 private:
  virtual void enter(const char* key, const char* help,
                     const std::function<void(Fields&)>& visit) = 0;
};

/// A function that visits the fields of some options struct.
using VisitFields = std::function<void(Fields&)>;

template <class Options>
VisitFields visit_fields() {
  return [](Fields& f) {
    Options options;
    options.fields(f);
  };
}

struct Problem;

/// Checks a mapping that `registry` will build; adds what is wrong to `problems`.
using CheckNested = std::function<void(const std::string& registry, const Config& config,
                                       std::vector<Problem>& problems)>;

/// One mapping of a YAML document that knows its place. Copies share the document.
/// Reading records the defaults it used, so one document must not be read by two threads at once.
class Config {
 public:
  Config();  // an empty mapping

  /// Reads a file, merges its `base:` files below it and applies `key.path=value` overrides.
  /// Mappings merge key by key; lists and scalars are replaced. Refuses duplicate keys.
  /// Throws ConfigError.
  static Config load(const std::string& path, const std::vector<std::string>& overrides = {});
  static Config parse(const std::string& text, const std::string& name = "<text>",
                      const std::vector<std::string>& overrides = {});

  bool has(const std::string& key) const;      // given, not a default
  Config child(const std::string& key) const;  // an absent key gives an empty mapping
  std::string type() const;                    // the value of `type`; throws when absent

  /// Fills `options` and refuses unknown keys (with the nearest known one), wrong types and values
  /// outside their rule: all errors of the mapping at once. Absent keys keep their defaults.
  template <class Options>
  Options read(Options options = {}) const {
    read_fields([&](Fields& f) { options.fields(f); }, false);
    return options;
  }
  /// The same for a mapping whose `type` has chosen these options.
  template <class Options>
  Options read_typed(Options options = {}) const {
    read_fields([&](Fields& f) { options.fields(f); }, true);
    return options;
  }

  /// Adds the errors that reading would throw; `nested` is asked about mappings with a `type`.
  void check_fields(const VisitFields& visit, bool typed, const CheckNested& nested,
                    std::vector<Problem>& problems) const;

  /// Gives an absent key a value that the program knows (a model's horizon from its data).
  void set_default(const std::string& key, const nlohmann::json& value);

  std::string place(const std::string& key = "") const;  // "file:line:column"
  [[noreturn]] void fail(const std::string& key, const std::string& message) const;
  std::string yaml() const;  // this mapping as text, overrides and defaults included

 private:
  struct Document;
  friend class FieldReader;
  friend Problem problem_at(const Config& config, const std::string& key,
                            const std::string& message);

  void read_fields(const VisitFields& visit, bool typed) const;

  std::shared_ptr<Document> document_;
  std::vector<std::string> path_;
};

/// The JSON Schema (draft 2020-12) of an options struct's fields. A nested mapping refers to
/// `#/$defs/<registry>`, which core/catalog.h defines. `typed` adds the key `type`.
nlohmann::json schema_of(const VisitFields& visit, bool typed = false);

/// The known name nearest to `name` by edit distance, or "" when none is near.
std::string nearest(const std::string& name, const std::vector<std::string>& known);

}  // namespace serpentine
