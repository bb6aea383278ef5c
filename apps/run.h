// What a run's YAML describes, checked as a whole and then built.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "apps/packages.h"
#include "core/config.h"
#include "core/train/checkpoint.h"
#include "core/train/trainer.h"

namespace serpentine {

/// The root of a run's YAML.
struct RunOptions {
  std::string name;
  Config data, model, task;
  FitOptions fit;  // trainer, loader, optimizer, schedule
  CheckpointOptions checkpoint;
  void fields(Fields& f);
};

/// A YAML file with its overrides, found correct as far as can be told without opening the data.
struct RunPlan {
  Config root;
  RunOptions options;
  std::string path;
};

/// Throws one ConfigError with every error of the file.
RunPlan read_plan(const Packages& packages, const std::string& path,
                  const std::vector<std::string>& overrides = {});

/// The parts of a run. The model's keys that follow from the data are filled in.
struct RunParts {
  std::shared_ptr<DataSource> source;
  std::shared_ptr<Model> model;
  std::shared_ptr<Task> task;
};

RunParts build_parts(const Packages& packages, RunPlan& plan);

/// "s_mamba, 1.2 M parameters".
std::string describe(const std::string& type, const Model& model);

/// "12,345" and "1.2 M": counts for people.
std::string readable_count(int64_t count);

}  // namespace serpentine
