#include "apps/run.h"

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/check.h"

namespace serpentine {

void RunOptions::fields(Fields& f) {
  f("name", name, "Name of the run; its folder is runs/<name>. Empty: the YAML file's name");
  f.nested("data", data, "Where the examples come from", "data", {.required = true});
  f.nested("model", model, "What is trained", "model", {.required = true});
  f.nested("task", task, "Loss and metrics", "task", {.required = true});
  fit.fields(f);
  f.group("checkpoint", checkpoint, "when checkpoints are written, and how many stay");
}

RunPlan read_plan(const Packages& packages, const std::string& path,
                  const std::vector<std::string>& overrides) {
  RunPlan plan{Config::load(path, overrides), {}, path};
  packages.catalog().check<RunOptions>(plan.root);
  plan.options = plan.root.read<RunOptions>();
  return plan;
}

RunParts build_parts(const Packages& packages, RunPlan& plan) {
  RunParts parts;
  parts.source = packages.sources.build(plan.options.data);
  parts.source->fill_model(plan.options.model, plan.options.task);
  if (!plan.root.has("loader") || !plan.root.child("loader").has("batch_size")) {
    const auto batch = parts.source->description().value("batch", int64_t{0});  // a plan's
    if (batch > 0) plan.options.fit.loader.batch_size = batch;
  }

  // weights start from the seed, whatever was drawn before
  seed_everything(plan.options.fit.trainer.seed, plan.options.fit.trainer.deterministic);
  parts.model = packages.models.build(plan.options.model);
  parts.task = packages.tasks.build(plan.options.task);
  return parts;
}

std::string readable_count(int64_t count) {
  char text[32];
  if (count >= 1000000) {
    std::snprintf(text, sizeof text, "%.1f M", static_cast<double>(count) / 1e6);
    return text;
  }
  std::string digits = std::to_string(count);
  for (auto at = static_cast<int64_t>(digits.size()) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<size_t>(at), ",");
  }
  return digits;
}

std::string describe(const std::string& type, const Model& model) {
  int64_t count = 0;
  for (const auto& parameter : model.parameters()) count += parameter.numel();
  return type + ", " + readable_count(count) + " parameters";
}

}  // namespace serpentine
