// What all registries know of options, without their interfaces: checks a whole document before
// anything is built, and writes the JSON Schema of whole documents.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "core/config.h"
#include "core/registry.h"

namespace serpentine {

class Catalog {
 public:
  /// Adds the names that `registry` has now, under its kind.
  template <class Interface>
  void add(const Registry<Interface>& registry) {
    auto& kind = kinds_[registry.kind()];
    for (const auto& name : registry.names()) kind[name] = registry.fields(name);
  }

  /// Throws one ConfigError with every error of the document: unknown keys, wrong types, broken
  /// rules and unknown names, in nested mappings too.
  template <class Options>
  void check(const Config& root) const {
    check_all(root, visit_fields<Options>());
  }

  /// The schema (draft 2020-12) of a document whose root is `Options`. A file with a `base:` may
  /// leave out required keys.
  template <class Options>
  nlohmann::json schema(const std::string& title) const {
    return schema_all(title, visit_fields<Options>());
  }

 private:
  void check_all(const Config& root, const VisitFields& visit) const;
  void check_nested(const std::string& kind, const Config& config,
                    std::vector<Problem>& problems) const;
  nlohmann::json schema_all(const std::string& title, const VisitFields& visit) const;

  std::map<std::string, std::map<std::string, VisitFields>> kinds_;
};

}  // namespace serpentine
