// serpentine evaluate: the metrics of a trained run on one part of its data.
#include <filesystem>
#include <iostream>

#include <torch/torch.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/cloud_report.h"
#include "apps/command.h"
#include "apps/image_report.h"
#include "apps/model_file.h"
#include "apps/training.h"
#include "core/check.h"
#include "core/io/state_dict.h"
#include "core/train/checkpoint.h"
#include "core/train/classification.h"

namespace serpentine {
namespace {

constexpr const char* kEvaluateFooter =
    R"(Metrics are exact: nothing is dropped, and the batch size does not change them.
Of a classifier of images or clouds it also prints a table of the classes, and writes the confusion
matrix and the worst mistakes into RUN/evaluation_SPLIT (--report elsewhere): of images with the
reliability plot, of clouds with a page to turn in a browser.
Examples:
  serpentine evaluate runs/mine
  serpentine evaluate runs/mine --split validation --json
  serpentine evaluate runs/mine data.path=elsewhere/my.csv)";

struct EvaluateArguments {
  std::string run, split = "test", weights, report;
  std::vector<std::string> overrides;
  bool json = false;
};

/// Where tables and pictures go; "": nowhere.
std::string report_folder(const EvaluateArguments& arguments) {
  if (arguments.json) return "";
  if (!arguments.report.empty()) return arguments.report;
  const bool run = std::filesystem::is_directory(arguments.run);
  return run ? arguments.run + "/evaluation_" + arguments.split : "";
}

/// The metrics of an image classifier, and what there is to look at beside them.
std::map<std::string, double> evaluate_images(const EvaluateArguments& arguments,
                                              const RunPlan& plan, const RunParts& parts,
                                              const ImageSource& source, const ImageDataset& images,
                                              ClassificationTask& task) {
  ImageRun run;
  run.folder = arguments.run;
  run.model = parts.model;
  run.schema = ImageSchema::from_json(source.description());
  run.device = pick_device(plan.options.fit.trainer.device);
  run.model->to(run.device);
  run.model->eval();
  const int64_t batch = plan.options.fit.trainer.evaluation_batch;
  const ImageScores scores =
      score_images(run, images, batch > 0 ? batch : plan.options.fit.loader.batch_size);
  task.add(scores.probabilities, scores.targets);
  const std::string folder = report_folder(arguments);
  if (!folder.empty()) report_images(scores, images, source.classes(), folder);
  return task.metrics();
}

int run_evaluate(const EvaluateArguments& arguments) {
  const Packages packages = all_packages();
  const std::string weights =
      arguments.weights.empty() ? weights_of_run(arguments.run) : arguments.weights;
  if (weights.empty()) {
    throw UsageError("evaluate: '" + arguments.run +
                     "' is no run folder; with a YAML file --weights is needed");
  }
  RunPlan plan = read_plan(packages, yaml_of(arguments.run), arguments.overrides);
  const RunParts parts = build_parts(packages, plan);
  const LoadReport fit =
      load_state_dict(*parts.model, read_weights(weights), parts.model->tolerated_keys());
  TORCH_CHECK(fit.ok(), weights, " does not fit the model of ", yaml_of(arguments.run), "\n",
              fit.text());
  const Part part = arguments.split == "train"        ? Part::kTrain
                    : arguments.split == "validation" ? Part::kValidation
                                                      : Part::kTest;
  const auto examples = parts.source->part(part);
  TORCH_CHECK(examples->size() > 0, arguments.run, ": the ", arguments.split,
              " part holds no examples");
  const auto* source = dynamic_cast<const ImageSource*>(parts.source.get());
  const auto* images = dynamic_cast<const ImageDataset*>(examples.get());
  auto* task = dynamic_cast<ClassificationTask*>(parts.task.get());
  const auto* clouds = dynamic_cast<const CloudDataset*>(examples.get());
  auto* cloud_task = dynamic_cast<CloudTask*>(parts.task.get());
  std::map<std::string, double> metrics;
  if (source != nullptr && images != nullptr && task != nullptr) {
    metrics = evaluate_images(arguments, plan, parts, *source, *images, *task);
  } else if (clouds != nullptr && cloud_task != nullptr) {
    metrics = evaluate_clouds(plan, parts, *clouds, *cloud_task, report_folder(arguments));
  } else {
    metrics = evaluate_model(plan, parts.model, parts.task, *examples);
  }
  if (arguments.json) {
    std::cout << nlohmann::json(metrics).dump(1) << "\n";
  } else {
    std::cout << arguments.split << ", " << readable_count(examples->size())
              << " examples: " << metrics_text(metrics) << "\n";
  }
  return 0;
}

}  // namespace

void add_evaluate_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("evaluate", "Compute a run's metrics on a part of its data");
  command->footer(kEvaluateFooter);
  auto arguments = std::make_shared<EvaluateArguments>();
  command->add_option("RUN", arguments->run, "Run folder, or a YAML file with --weights")
      ->required();
  command
      ->add_option("OVERRIDES", arguments->overrides,
                   "Overrides of the run's YAML, as data.path=my.csv")
      ->type_name("KEY=VALUE");
  command->add_option("--split", arguments->split, "Part of the data")
      ->check(CLI::IsMember({"train", "validation", "test"}))
      ->capture_default_str();
  command->add_option("--weights", arguments->weights, "Another checkpoint than the run's best");
  command->add_option("--report", arguments->report,
                      "Folder of a classifier's tables and pictures");
  command->add_flag("--json", arguments->json, "Print JSON, and nothing else");
  command->callback(
      [&action, arguments] { action = [arguments] { return run_evaluate(*arguments); }; });
}

}  // namespace serpentine
