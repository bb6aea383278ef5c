// Names to factories. Filled by plain functions, never by static initialisers (linkers drop those).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/config.h"

namespace serpentine {

/// The error for a `type` that is not among `known`: the nearest name and all of them.
std::string unknown_name(const std::string& kind, const std::string& name,
                         const std::vector<std::string>& known);

template <class Interface>
class Registry {
 public:
  /// `kind` names the registry in errors and in the schema: "model", "dataset", "task".
  explicit Registry(std::string kind) : kind_(std::move(kind)) {}

  /// Registers `name`; a second registration of a name throws.
  template <class Options>
  void add(const std::string& name,
           std::function<std::shared_ptr<Interface>(const Options&)> make) {
    Entry entry;
    entry.build = [make](const Config& config) {
      return make(config.read_typed<Options>(Options{}));
    };
    entry.fields = visit_fields<Options>();
    if (!entries_.emplace(name, std::move(entry)).second) {
      throw std::logic_error(kind_ + " '" + name + "' is registered twice");
    }
  }

  /// Builds what the mapping's `type` names; an unknown name lists the known ones.
  std::shared_ptr<Interface> build(const Config& config) const {
    const std::string type = config.type();
    const auto entry = entries_.find(type);
    if (entry == entries_.end()) config.fail("type", unknown_name(kind_, type, names()));
    return entry->second.build(config);
  }

  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& [name, entry] : entries_) all.push_back(name);
    return all;
  }
  const VisitFields& fields(const std::string& name) const { return entries_.at(name).fields; }
  const std::string& kind() const { return kind_; }

 private:
  struct Entry {
    std::function<std::shared_ptr<Interface>(const Config&)> build;
    VisitFields fields;
  };
  std::string kind_;
  std::map<std::string, Entry> entries_;
};

}  // namespace serpentine
