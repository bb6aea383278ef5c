#include "apps/fold_record.h"

#include <algorithm>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "core/config_node.h"
#include "core/io/atomic_file.h"
#include "core/io/json_file.h"

namespace serpentine {
namespace {

using Json = nlohmann::json;

/// Defaults that nobody wrote: a value that is given later and equals them is no difference.
void add_defaults(Json& section, const VisitFields& fields) {
  const Json schema = schema_of(fields);
  for (const auto& [key, property] : schema.at("properties").items()) {
    if (property.contains("default") && !section.contains(key)) section[key] = property["default"];
  }
}

/// "trainer.epochs" to its value, for every value of the document.
Json record_of(const Packages& packages, const RunPlan& plan, int64_t folds) {
  Json all = json_from_node(parse_yaml(plan.root.yaml(), plan.path));
  add_defaults(all["model"], packages.models.fields(plan.options.model.type()));
  add_defaults(all["task"], packages.tasks.fields(plan.options.task.type()));
  const Json paths = all.flatten();
  Json flat = Json::object();
  for (const auto& [path, value] : paths.items()) {
    std::string key = path.substr(1);
    std::replace(key.begin(), key.end(), '/', '.');
    // every fold sets its own; the number of folds stands below
    if (key != "data.splits.fold" && key != "data.splits.folds") flat[key] = value;
  }
  flat["folds"] = folds;
  return flat;
}

std::string value_of(const Json& record, const std::string& key) {
  return record.contains(key) && !record[key].is_null() ? record[key].dump() : "nothing";
}

}  // namespace

void keep_configuration(const Packages& packages, const std::string& out, const RunPlan& plan,
                        int64_t folds) {
  const std::string path = out + "/crossval.json";
  const Json before = read_json(path), now = record_of(packages, plan, folds);
  if (!std::filesystem::exists(out + "/fold_0")) {
    std::error_code error;
    std::filesystem::create_directories(out, error);  // write_atomically says what is wrong
    write_atomically(path, now.dump(1) + "\n");
    return;
  }
  if (!before.is_object())
    throw UsageError(out + ": holds folds, but not what they began with (crossval.json); " +
                     "give another --out");
  Json both = before;
  both.update(now);
  for (const auto& [key, unused] : both.items()) {
    const std::string old = value_of(before, key), asked = value_of(now, key);
    const bool same =
        before.contains(key) && now.contains(key) ? before[key] == now[key] : old == asked;
    if (same) continue;
    throw UsageError(out + ": its folds began with " + key + " = " + old + ", this call says " +
                     asked + "; give another --out, or the former values (" + path + ")");
  }
}

}  // namespace serpentine
