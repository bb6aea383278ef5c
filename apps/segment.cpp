// serpentine segment: plans, predictions, evaluations and cross-validations of segmentation.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <sstream>

#include <torch/torch.h>
#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "apps/segment_run.h"
#include "apps/training.h"
#include "core/check.h"
#include "core/io/atomic_file.h"
#include "segmentation/evaluation.h"
#include "segmentation/patch_source.h"
#include "segmentation/plan.h"

namespace serpentine {
namespace {

constexpr const char* kSegmentFooter =
    R"(DATA is a folder in nnU-Net's or the Medical Segmentation Decathlon's layout (dataset.json), one
with images/ and labels/, or a CSV with the columns image and label.
Examples:
  serpentine segment plan data/Task04 -o plan.yaml --memory 8
  serpentine train configs/segmentation/hippocampus_unet.yaml data.path=data/Task04 --out runs/hip
  serpentine segment predict runs/hip new_cases/ -o predicted/
  serpentine segment predict runs/cv/fold_0 runs/cv/fold_1 new_cases/ -o predicted/
  serpentine segment evaluate predicted/ truth/ -o report --images new_cases/
  serpentine segment crossval configs/segmentation/hippocampus_unet.yaml --out runs/cv)";

struct SegmentArguments {
  std::vector<std::string> words;
  std::string out, data, guesses, truths, images, labels, plan;
  PlanOptions planned;
  PredictFiles predict;
  EvaluationOptions evaluation;
  bool no_mirror = false;
};

int run_plan(const SegmentArguments& arguments) {
  CaseList list = find_cases(arguments.data, {arguments.images, arguments.labels});
  const Fingerprint fingerprint = take_fingerprint(list);
  const SegmentationPlan plan = make_plan(list, fingerprint, arguments.planned);
  for (const auto& notes : {list.notes, fingerprint.notes})
    for (const auto& note : notes) std::cout << "note  " << note << "\n";
  std::cout << list.cases.size() << " cases with labels, " << list.unlabelled.size()
            << " without\n";
  if (arguments.out.empty()) {
    std::cout << plan_yaml(plan);
  } else {
    write_atomically(arguments.out, plan_yaml(plan));
    std::cout << arguments.out << "\n";
  }
  return 0;
}

int run_predict(SegmentArguments arguments) {
  if (arguments.words.size() < 2)
    throw UsageError("segment predict: give one or more run folders, then the image or folder");
  const Packages packages = all_packages();
  std::vector<SegmentRun> runs;
  for (size_t i = 0; i + 1 < arguments.words.size(); ++i)
    runs.push_back(open_segment_run(packages, arguments.words[i]));
  const auto cases = find_images(arguments.words.back(), runs[0].plan.in_channels);
  arguments.predict.options.mirror = !arguments.no_mirror;
  return predict_files(runs, cases, arguments.predict) > 0 ? 1 : 0;
}

/// Classes of a plan, so that tables carry names.
void use_plan(EvaluationOptions& options, const SegmentationPlan& plan) {
  options.label_scale = plan.label_scale;
  options.ignore = plan.ignore;
  options.classes.clear();
  for (size_t k = 0; k < plan.values.size(); ++k) {
    std::vector<int64_t> values;
    std::stringstream list(plan.values[k]);
    for (std::string part; std::getline(list, part, '+');) values.push_back(std::stoll(part));
    if (values != std::vector<int64_t>{0})
      options.classes.emplace_back(plan.class_names[k], values);
  }
}

int report(const Evaluation& found, const EvaluationOptions& options, const std::string& out) {
  for (const auto& note : found.notes) std::cerr << note << "\n";
  std::cout << summary_text(found, options);
  if (!out.empty()) {
    for (const auto& file : write_evaluation(found, options, out)) std::cout << file << "\n";
  }
  return found.notes.empty() ? 0 : 1;
}

int run_evaluate(SegmentArguments arguments) {
  auto& options = arguments.evaluation;
  options.images = arguments.images;
  if (!arguments.plan.empty()) use_plan(options, read_plan_file(arguments.plan));
  const auto found = evaluate_folders(arguments.guesses, arguments.truths, options);
  return report(found, options, arguments.out);
}

/// Cases of a list by name, with the files of their images.
std::vector<CaseFiles> named_cases(const CaseList& list, const std::vector<std::string>& names) {
  std::vector<CaseFiles> chosen;
  for (const auto& one : list.cases)
    if (std::find(names.begin(), names.end(), one.name) != names.end()) chosen.push_back(one);
  return chosen;
}

struct PartRule {
  const char* name;
  bool largest, fill_holes;
};
constexpr PartRule kRules[] = {{"none", false, false},
                               {"largest", true, false},
                               {"fill_holes", false, true},
                               {"largest and fill_holes", true, true}};

/// The rule with the best mean Dice over all cases that their fold did not train on.
void choose_rule(const CaseList& list, const SegmentationPlan& plan, const std::string& guesses,
                 const std::string& out) {
  std::string table;
  double best = -1;
  const PartRule* chosen = nullptr;
  for (const auto& rule : kRules) {
    double sum = 0, count = 0;
    for (const auto& one : list.cases) {
      std::string file = guesses + "/" + one.name + ".nii.gz";
      if (!std::filesystem::exists(file)) file = guesses + "/" + one.name + ".png";
      if (!std::filesystem::exists(file)) continue;
      const Volume image = read_volume(one.label);
      const auto truth =
          to_classes(plan, read_labels(one.label, image, plan.label_scale), one.label);
      const auto guess =
          to_classes(plan, cleaned(read_labels(file, image), rule.largest, rule.fill_holes), file);
      for (int64_t k = plan.regions ? 0 : 1; k < plan.classes; ++k) {
        const auto of = [&](const torch::Tensor& classes) {
          return plan.regions ? classes.clamp_min(0).bitwise_and(int64_t{1} << k).ne(0)
                              : classes.eq(k);
        };
        const auto a = of(guess), b = of(truth);
        const double whole = (a.sum() + b.sum()).item<double>();
        if (whole == 0) continue;
        sum += 2 * (a & b).sum().item<double>() / whole;
        count += 1;
      }
    }
    const double dice = count > 0 ? sum / count : 0;
    char line[80];
    std::snprintf(line, sizeof line, "%-24s mean Dice %.5f\n", rule.name, dice);
    table += line;
    if (dice > best + 1e-6) {  // the plainest of equal ones
      best = dice;
      chosen = &rule;
    }
  }
  std::cout << "\nrules over the held-out cases\n" << table << "chosen: " << chosen->name << "\n";
  write_atomically(out + "/postprocess.txt", table + "chosen: " + chosen->name + "\n");
}

int run_crossval(SegmentArguments arguments) {
  const Packages packages = all_packages();
  if (arguments.words.empty()) throw UsageError("segment crossval: which YAML file?");
  TrainRequest request;
  request.config = arguments.words[0];
  request.overrides.assign(arguments.words.begin() + 1, arguments.words.end());
  const RunPlan plan = read_plan(packages, request.config, request.overrides);
  TORCH_CHECK(plan.options.data.type() == "segmentation", request.config,
              ": `data` must be of type segmentation");
  const auto data = plan.options.data.read_typed<PatchSourceOptions>();
  const std::string out = arguments.out.empty() ? "runs/crossval" : arguments.out;
  const CaseList list = find_cases(data.path, {data.images, data.labels});

  std::vector<SegmentRun> runs;
  PredictFiles how = arguments.predict;
  how.out = out + "/held_out";
  how.options.mirror = !arguments.no_mirror;
  for (int64_t fold = 0; fold < data.folds; ++fold) {
    TrainRequest one = request;
    one.overrides.push_back("data.fold=" + std::to_string(fold));
    one.out = out + "/fold_" + std::to_string(fold);
    if (!std::filesystem::exists(one.out + "/finished")) {
      one.resume = std::filesystem::exists(one.out + "/config.yaml");
      if (one.resume) one.config = one.out + "/config.yaml";
      const auto result = train_run(packages, one);
      if (result.code != 0) return result.code;
      write_atomically(one.out + "/finished", "");
    }
    runs.push_back(open_segment_run(packages, one.out));
    predict_files({runs.back()}, named_cases(list, runs.back().held_out), how);
  }
  EvaluationOptions& options = arguments.evaluation;
  use_plan(options, runs[0].plan);
  options.images = std::filesystem::path(list.cases[0].images[0]).parent_path().string();
  const std::string truths = std::filesystem::path(list.cases[0].label).parent_path().string();
  const int code = report(evaluate_folders(how.out, truths, options), options, out + "/report");
  choose_rule(list, runs[0].plan, how.out, out);
  return code;
}

}  // namespace

void add_segment_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("segment", "Plan, predict and evaluate segmentations");
  command->footer(kSegmentFooter);
  command->require_subcommand(1);
  auto arguments = std::make_shared<SegmentArguments>();
  const auto chosen = [&action, arguments](CLI::App* sub, int (*run)(SegmentArguments)) {
    sub->callback(
        [&action, arguments, run] { action = [arguments, run] { return run(*arguments); }; });
  };
  auto* plan = command->add_subcommand("plan", "Look at a data set, and write its plan");
  plan->add_option("DATA", arguments->data, "Folder or CSV")->required();
  plan->add_option("-o,--out", arguments->out, "YAML to write; default: print it");
  plan->add_option("--dims", arguments->planned.dims, "2 or 3; default 3 for volumes");
  plan->add_option("--memory", arguments->planned.memory, "GB for the patch and the batch");
  plan->add_option("--patch", arguments->planned.patch, "Patch instead of the rule, as 32 48 48");
  plan->add_option("--batch", arguments->planned.batch, "Batch instead of the rule");
  plan->add_option("--first-features", arguments->planned.first_features, "Channels of stage 1");
  plan->add_option("--images", arguments->images, "Folder of images with an unusual name");
  plan->add_option("--labels", arguments->labels, "Folder of labels with an unusual name");
  chosen(plan, [](SegmentArguments given) { return run_plan(given); });

  const auto add_predict_options = [&](CLI::App* sub) {
    sub->add_option("--step", arguments->predict.options.step, "Between windows, of their size");
    sub->add_flag("--no-mirror", arguments->no_mirror, "One view instead of all mirrored ones");
    sub->add_option("--windows", arguments->predict.options.batch, "Windows at once");
    sub->add_option("--device", arguments->predict.device, "auto, cpu or cuda");
    sub->add_option("--precision", arguments->predict.precision, "fp32, bf16 or fp16")
        ->check(CLI::IsMember({"fp32", "bf16", "fp16"}));
    sub->add_flag("--largest", arguments->predict.largest, "Keep the largest part of each label");
    sub->add_flag("--fill-holes", arguments->predict.fill_holes, "Fill holes of each label");
    sub->add_flag("--overwrite", arguments->predict.overwrite, "Do not skip existing results");
  };
  auto* predict = command->add_subcommand("predict", "Labels for new images");
  predict->add_option("RUN... IN", arguments->words, "Run folders, then an image or a folder")
      ->required();
  predict->add_option("-o,--out", arguments->predict.out, "Folder of the labels")->required();
  add_predict_options(predict);
  chosen(predict, run_predict);

  auto* evaluate = command->add_subcommand("evaluate", "Predictions against the truth");
  evaluate->add_option("PREDICTED", arguments->guesses, "Folder")->required();
  evaluate->add_option("TRUTH", arguments->truths, "Folder")->required();
  evaluate->add_option("-o,--out", arguments->out, "Folder of tables and pictures");
  evaluate->add_option("--images", arguments->images, "Folder of the images, for overlays");
  evaluate->add_option("--plan", arguments->plan, "Plan with the names of the classes");
  evaluate->add_option("--tolerance", arguments->evaluation.metrics.tolerances,
                       "Millimetres of the normalised surface distance");
  evaluate->add_option("--worst", arguments->evaluation.worst, "Cases with pictures");
  evaluate->add_option("--lesion-overlap", arguments->evaluation.metrics.lesion_overlap,
                       "Share of a lesion that must be covered to count as found");
  chosen(evaluate, run_evaluate);

  auto* crossval = command->add_subcommand("crossval", "Train all folds, judge the held-out cases");
  crossval->add_option("CONFIG", arguments->words, "YAML file, then overrides")->required();
  crossval->add_option("--out", arguments->out, "Folder of the folds (default runs/crossval)");
  add_predict_options(crossval);
  chosen(crossval, run_crossval);
}

}  // namespace serpentine
