#include "apps/training.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "apps/bag_results.h"
#include "apps/command.h"
#include "apps/model_file.h"
#include "apps/run_record.h"
#include "apps/trained.h"
#include "apps/training_plots.h"
#include "core/check.h"
#include "core/config_node.h"
#include "core/data/random.h"
#include "core/dist/process_group.h"
#include "core/io/atomic_file.h"
#include "core/io/json_file.h"
#include "core/io/run_folder.h"
#include "core/io/state_dict.h"
#include "core/train/checkpoint.h"
#include "core/train/ema.h"

namespace serpentine {
namespace {

/// Settings that must not change when a run goes on.
std::string hash_of(const RunPlan& plan) {
  const uint64_t hash = text_key(plan.options.model.yaml() + plan.options.task.yaml());
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

bool holds_run(const std::string& folder) {
  return std::filesystem::exists(folder + "/config.yaml") ||
         std::filesystem::exists(folder + "/checkpoints");
}

std::string choose_folder(const TrainRequest& request, const RunPlan& plan) {
  if (!request.out.empty()) {
    if (holds_run(request.out) && !request.resume && !request.replace) {
      throw UsageError(request.out +
                       " already holds a run; go on with `serpentine train --resume " +
                       request.out + "`, or choose another --out");
    }
    return request.out;
  }
  std::string name = plan.options.name;
  if (name.empty()) name = std::filesystem::path(plan.path).stem().string();
  std::string folder = "runs/" + name;
  for (int number = 2; holds_run(folder); ++number)
    folder = "runs/" + name + "-" + std::to_string(number);
  return folder;
}

void introduce(const RunPlan& plan, const RunParts& parts, const std::string& folder,
               torch::Device device) {
  const auto size = [&](Part part) { return readable_count(parts.source->part(part)->size()); };
  std::cout << "run        " << folder << "\n"
            << "model      " << describe(plan.options.model.type(), *parts.model) << ", on "
            << device.str() << "\n"
            << "examples   " << size(Part::kTrain) << " training, " << size(Part::kValidation)
            << " validation, " << size(Part::kTest) << " test\n";
  for (const auto& note : parts.source->notes()) std::cout << "note       " << note << "\n";
  std::cout.flush();
}

void write_description(const std::string& folder, const RunPlan& plan, const RunParts& parts) {
  const RunFolder run = RunFolder::open(folder);
  run.write_config(plan.root.yaml());
  run.write_environment(command_line());
  write_atomically(folder + "/data.json", parts.source->description().dump(1) + "\n");
}

/// A run goes on with the data it began with, or its description and its weights would part.
void check_same_data(const std::string& folder, const RunParts& parts) {
  const std::string path = folder + "/data.json";
  if (!std::filesystem::exists(path)) return;
  const auto before = read_json(path);
  TORCH_CHECK(before.is_object(), path, ": is damaged; the run cannot go on");
  const nlohmann::json now = nlohmann::json::parse(parts.source->description().dump());
  for (const auto& [key, value] : now.items()) {
    if (!before.contains(key)) continue;  // written by an earlier version, which did not note it
    TORCH_CHECK(before[key] == value, folder, ": the run began with other data: ", key,
                " in data.json differs. Start a new run, or resume without data overrides");
  }
}

/// Model and task stay what they were, or the weights would mean something else.
void check_same_settings(const std::string& folder, const RunPlan& plan) {
  const std::string path = folder + "/config.yaml";
  if (!std::filesystem::exists(path)) return;
  const auto values = [](const Config& config) {
    return nlohmann::json::parse(json_from_node(parse_yaml(config.yaml(), "")).dump()).flatten();
  };
  const auto before = values(Config::load(path)), now = values(plan.root);
  auto both = before;
  both.update(now);
  for (const auto& [key, unused] : both.items()) {
    if (key.rfind("/model/", 0) != 0 && key.rfind("/task/", 0) != 0) continue;
    const std::string old = before.contains(key) ? before[key].dump() : "nothing",
                      asked = now.contains(key) ? now[key].dump() : "nothing";
    std::string name = key.substr(1);
    std::replace(name.begin(), name.end(), '/', '.');
    TORCH_CHECK(old == asked, folder, ": the run began with another configuration: ", name, " = ",
                old, ", this call says ", asked, ". Start a new run, or resume without it");
  }
}

/// Lays the newest whole checkpoint into the trainer.
void resume_from(const std::string& folder, Trainer& trainer, const std::string& hash) {
  const auto checkpoints = list_checkpoints(folder + "/checkpoints");
  TORCH_CHECK(!checkpoints.empty(), folder,
              ": holds no checkpoint to go on from; start it again with another --out");
  for (const auto& [path, step] : checkpoints) {
    try {
      verify_checkpoint(path);
    } catch (const c10::Error& error) {
      const std::string text = error.what_without_backtrace();
      if (trainer.first_rank()) std::cerr << text.substr(0, text.find('\n')) << std::endl;
      continue;
    }
    load_checkpoint(path, trainer, hash);
    if (trainer.first_rank()) std::cout << "resumed    " << path << std::endl;
    return;
  }
  TORCH_CHECK(false, folder, ": none of its ", checkpoints.size(),
              " checkpoints can be read; start it again with another --out");
}

/// Fits a model that has something to learn; one without parameters is ready as it is.
TrainState fit(const TrainRequest& request, const RunPlan& plan, const RunParts& parts,
               Trainer& trainer, const std::string& folder) {
  const auto training = parts.source->part(Part::kTrain);
  SERPENTINE_CHECK(training->size() > 0, plan.path, "the training part holds no examples");
  const std::string hash = hash_of(plan);
  if (!parts.model->parameters().empty()) {
    if (trainer.first_rank()) {
      trainer.observe(
          std::make_shared<RunRecord>(folder, plan.options.fit.trainer, request.resume));
    }
    trainer.observe(std::make_shared<CheckpointObserver>(trainer, plan.options.checkpoint,
                                                         folder + "/checkpoints", hash,
                                                         "serpentine train --resume " + folder));
    trainer.fit(*training, *parts.source->part(Part::kValidation));
  }
  // without validation there is no best evaluation: the last weights count
  const std::string best = folder + "/checkpoints/best.safetensors";
  if (trainer.first_rank() && trainer.state().signal == 0 && trainer.state().failure.empty() &&
      !std::filesystem::exists(best)) {
    make_folder(folder + "/checkpoints");
    const EmaScope averaged(trainer.best_weights().empty() ? trainer.ema() : nullptr);
    write_weights(best, state_dict(trainer.model()));
  }
  return trainer.state();
}

}  // namespace

std::string metrics_text(const std::map<std::string, double>& metrics) {
  std::string text;
  for (const auto& [name, value] : metrics) {
    char number[48];
    std::snprintf(number, sizeof number, "%s%s %.5g", text.empty() ? "" : "  ", name.c_str(),
                  value);
    text += number;
  }
  return text;
}

std::map<std::string, double> evaluate_model(const RunPlan& plan, std::shared_ptr<Model> model,
                                             std::shared_ptr<Task> task, const Dataset& examples) {
  FitOptions options = plan.options.fit;
  options.trainer.ema = 0;  // the weights are what they are
  Trainer trainer(options, std::move(model), std::move(task), pick_device(options.trainer.device));
  return trainer.evaluate(examples);
}

TrainRequest fold_request(TrainRequest request, const std::string& folder) {
  request.out = folder;
  request.replace = true;
  if (list_checkpoints(folder + "/checkpoints").empty()) return request;
  request.config = yaml_of(folder);
  request.overrides.clear();
  request.resume = true;
  request.replace = false;
  return request;
}

TrainResult train_run(const Packages& packages, const TrainRequest& request) {
  RunPlan plan = read_plan(packages, request.config, request.overrides);
  RunParts parts = build_parts(packages, plan);
  const World world = world_from_environment();
  const auto device = pick_device(plan.options.fit.trainer.device, world.local_rank);
  std::shared_ptr<ProcessGroup> group;
  if (world.size > 1) group = std::make_shared<ProcessGroup>(world, device);

  TrainResult result;
  result.folder = choose_folder(request, plan);
  Trainer trainer(plan.options.fit, parts.model, parts.task, device, group);
  if (request.resume) {  // before anything is written: a refused run stays as it is
    check_same_settings(result.folder, plan);
    check_same_data(result.folder, parts);
    resume_from(result.folder, trainer, hash_of(plan));
  }
  if (trainer.first_rank()) {
    if (request.replace && holds_run(result.folder)) std::filesystem::remove_all(result.folder);
    write_description(result.folder, plan, parts);
    introduce(plan, parts, result.folder, device);
    const std::string left_out = write_left_out(parts, result.folder);
    if (!left_out.empty()) std::cout << "note       " << left_out << std::endl;
  }
  if (group) group->barrier();

  const auto before = parts.source->notes();
  const TrainState state = fit(request, plan, parts, trainer, result.folder);
  for (const auto& note : parts.source->notes()) {  // what was only found while reading
    if (trainer.first_rank() && std::find(before.begin(), before.end(), note) == before.end())
      std::cout << "note       " << note << std::endl;
  }
  result.code = exit_code(state);
  if (result.code != 0 || state.signal != 0) return result;
  TORCH_CHECK(state.failure.empty(), state.failure);
  const auto test = parts.source->part(Part::kTest);
  if (test->size() > 0) result.test = trainer.evaluate(*test);
  if (!trainer.first_rank()) return result;
  if (!result.test.empty()) {
    std::cout << "test       " << metrics_text(result.test) << std::endl;
    write_atomically(result.folder + "/test.json", nlohmann::json(result.test).dump(1) + "\n");
  }
  draw_training(plan, parts, result.folder);
  write_bag_results(parts, trainer.device(), result.folder);
  return result;
}

}  // namespace serpentine
