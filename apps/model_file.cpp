#include "apps/model_file.h"

#include <filesystem>
#include <sstream>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/io/json_file.h"

namespace serpentine {
namespace {

/// The program arguments of S-D-Mamba as our YAML: "S_Mamba" is s_mamba, keys that we know keep
/// their names.
Config config_of_reference(const Packages& packages, const std::string& path,
                           const std::vector<std::string>& overrides) {
  const auto reference = read_json(path);
  TORCH_CHECK(!reference.is_null(), path, ": cannot be read");
  TORCH_CHECK(reference.is_object() && reference.contains("model"), path,
              ": is not a JSON object with a key 'model'");
  std::string type;
  for (const char c : reference["model"].get<std::string>())
    type += static_cast<char>(std::tolower(c));
  nlohmann::json model = {{"type", type}};
  const auto names = packages.models.names();
  if (std::find(names.begin(), names.end(), type) != names.end()) {
    const auto known = schema_of(packages.models.fields(type));
    for (const auto& [key, value] : reference.items()) {
      if (key != "type" && known["properties"].contains(key) && key != "model") model[key] = value;
    }
  }
  return Config::parse(nlohmann::json{{"model", model}}.dump(1), path, overrides);
}

}  // namespace

std::string yaml_of(const std::string& run_or_yaml) {
  if (!std::filesystem::is_directory(run_or_yaml)) return run_or_yaml;
  const std::string yaml = run_or_yaml + "/config.yaml";
  TORCH_CHECK(std::filesystem::exists(yaml), run_or_yaml,
              ": is not a run folder, it holds no config.yaml");
  return yaml;
}

std::string weights_of_run(const std::string& run_or_yaml) {
  if (!std::filesystem::is_directory(run_or_yaml)) return "";
  yaml_of(run_or_yaml);  // a folder without it is no run
  const std::string best = run_or_yaml + "/checkpoints/best.safetensors";
  TORCH_CHECK(std::filesystem::exists(best), run_or_yaml,
              ": has no weights yet (checkpoints/best.safetensors); finish its training first");
  return best;
}

std::shared_ptr<Model> build_model(const Packages& packages, const std::string& path,
                                   const std::vector<std::string>& overrides) {
  if (path.ends_with(".json")) {
    return packages.models.build(config_of_reference(packages, path, overrides).child("model"));
  }
  const Config root = Config::load(yaml_of(path), overrides);
  Config model = root.child("model");
  const bool from_run = std::filesystem::is_directory(path);
  if (!from_run && root.has("data") && root.has("task")) {
    packages.sources.build(root.child("data"))->fill_model(model, root.child("task"));
  }
  return packages.models.build(model);
}

}  // namespace serpentine
