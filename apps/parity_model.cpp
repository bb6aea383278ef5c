#include <filesystem>
#include <fstream>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/model_file.h"
#include "apps/parity.h"
#include "core/check.h"
#include "core/train/checkpoint.h"

namespace serpentine {

ParityModel::ParityModel(const Packages& packages, std::string model, std::string weights,
                         std::vector<std::string> overrides)
    : packages_(packages), model_(std::move(model)), overrides_(std::move(overrides)) {
  if (weights.empty()) weights = weights_of_run(model_);
  if (weights.empty())
    throw UsageError("parity: --weights is needed, for '" + model_ + "' is no run folder");
  weights_ = read_weights(weights);
  const auto built = build_model(packages_, model_, overrides_);
  const LoadReport fit = load_state_dict(*built, weights_, built->tolerated_keys());
  TORCH_CHECK(fit.ok(), weights, " does not fit the model of ", model_, "\n", fit.text());
  if (!fit.tolerated.empty()) {
    report = weights + ": " + std::to_string(fit.tolerated.size()) +
             " tensors left over, which this model knowingly has no use for\n";
  }
}

std::shared_ptr<Model> ParityModel::build(const std::vector<std::string>& options) const {
  std::vector<std::string> all = overrides_;
  all.insert(all.end(), options.begin(), options.end());
  const auto model = build_model(packages_, model_, all);
  load_state_dict(*model, weights_, model->tolerated_keys());
  model->eval();
  return model;
}

StateDict ParityModel::example_inputs() const {
  RunPlan plan = read_plan(packages_, yaml_of(model_), overrides_);
  const RunParts parts = build_parts(packages_, plan);
  const auto examples = parts.source->part(Part::kTest);
  TORCH_CHECK(examples->size() > 0, yaml_of(model_), ": the data have no test examples to record");
  std::vector<int64_t> indices = {0};
  if (examples->size() > 1) indices.push_back(examples->size() - 1);
  const Batch batch = examples->get_batch(indices);
  StateDict inputs = {{"input", batch.input}};
  for (const auto& [name, tensor] : batch.named) inputs.emplace_back("input." + name, tensor);
  return inputs;
}

}  // namespace serpentine
