// serpentine segment: plans, predictions, evaluations and cross-validations of segmentation.
#include <iostream>

#include <torch/torch.h>
#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "apps/segment_crossval.h"
#include "apps/segment_run.h"
#include "core/io/atomic_file.h"
#include "segmentation/evaluation.h"
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
  serpentine segment predict runs/cv new_cases/ -o predicted/
  serpentine segment evaluate predicted/ truth/ -o report --images new_cases/
  serpentine segment crossval configs/segmentation/hippocampus_unet.yaml --out runs/cv)";

constexpr int kMostCount = 1 << 20;  // of patches' sides, windows, cases: beyond it is a slip

struct SegmentArguments {
  std::vector<std::string> words;
  std::string out, data, guesses, truths, images, labels, plan;
  PlanOptions planned;
  PredictFiles predict;
  EvaluationOptions evaluation;
  bool no_mirror = false;
};

int run_crossval_arguments(SegmentArguments arguments) {
  SegmentCrossval wanted;
  if (!arguments.words.empty()) wanted.config = arguments.words[0];
  for (size_t i = 1; i < arguments.words.size(); ++i)
    wanted.overrides.push_back(arguments.words[i]);
  if (!arguments.out.empty()) wanted.out = arguments.out;
  wanted.predict = arguments.predict;
  wanted.predict.options.mirror = !arguments.no_mirror;
  wanted.evaluation = arguments.evaluation;
  return run_segment_crossval(wanted);
}

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
  for (const auto& folder : run_folders({arguments.words.begin(), arguments.words.end() - 1}))
    runs.push_back(open_segment_run(packages, folder));
  const auto images = find_images(arguments.words.back(), runs[0].plan.in_channels);
  arguments.predict.options.mirror = !arguments.no_mirror;
  const int64_t failed = predict_files(runs, images.cases, arguments.predict);
  for (const auto& note : images.notes) std::cerr << note << "\n";
  return failed > 0 || !images.notes.empty() ? 1 : 0;
}

int run_evaluate(SegmentArguments arguments) {
  auto& options = arguments.evaluation;
  options.images = arguments.images;
  if (!arguments.plan.empty()) use_plan_classes(options, read_plan_file(arguments.plan));
  const auto found = evaluate_folders(arguments.guesses, arguments.truths, options);
  return report_evaluation(found, options, arguments.out);
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
  plan->add_option("--dims", arguments->planned.dims,
                   "2 or 3; default 3 where cases have several slices")
      ->check(CLI::Range(2, 3));
  plan->add_option("--memory", arguments->planned.memory, "GB for the patch and the batch")
      ->check(CLI::Range(0.01, 1e6));
  plan->add_option("--patch", arguments->planned.patch, "Patch instead of the rule, as 32 48 48")
      ->check(CLI::Range(1, kMostCount));
  plan->add_option("--batch", arguments->planned.batch, "Batch instead of the rule")
      ->check(CLI::Range(1, kMostCount));
  plan->add_option("--first-features", arguments->planned.first_features, "Channels of stage 1")
      ->check(CLI::Range(1, kMostCount));
  plan->add_option("--images", arguments->images, "Folder of images with an unusual name");
  plan->add_option("--labels", arguments->labels, "Folder of labels with an unusual name");
  chosen(plan, [](SegmentArguments given) { return run_plan(given); });

  const auto add_predict_options = [&](CLI::App* sub) {
    sub->add_option("--step", arguments->predict.options.step, "Between windows, of their size")
        ->check(CLI::Range(0.01, 1.0));
    sub->add_flag("--no-mirror", arguments->no_mirror, "One view instead of all mirrored ones");
    sub->add_option("--windows", arguments->predict.options.batch, "Windows at once")
        ->check(CLI::Range(1, kMostCount));
    sub->add_option("--device", arguments->predict.device, "auto, cpu or cuda");
    sub->add_option("--precision", arguments->predict.precision, "fp32, tf32, bf16 or fp16")
        ->check(CLI::IsMember({"fp32", "tf32", "bf16", "fp16"}));
  };
  auto* predict = command->add_subcommand("predict", "Labels for new images");
  predict
      ->add_option("RUN", arguments->words, "Runs or cross-validations, then an image or a folder")
      ->required();
  predict->add_option("-o,--out", arguments->predict.out, "Folder of the labels")->required();
  add_predict_options(predict);
  predict->add_flag("--largest", arguments->predict.largest,
                    "Keep the largest part of each label, instead of the run's own rules");
  predict->add_flag("--fill-holes", arguments->predict.fill_holes,
                    "Fill holes of each label, instead of the run's own rules");
  predict->add_flag("--keep-parts", arguments->predict.keep_parts, "Without any such rules");
  predict->add_option("--dicom-seg", arguments->predict.dicom_seg,
                      "Folder of a DICOM Segmentation object (NAME.dcm) for each DICOM series");
  predict->add_flag("--overwrite", arguments->predict.overwrite, "Do not skip existing results");
  chosen(predict, run_predict);

  auto* evaluate = command->add_subcommand("evaluate", "Predictions against the truth");
  evaluate->add_option("PREDICTED", arguments->guesses, "Folder")->required();
  evaluate->add_option("TRUTH", arguments->truths, "Folder")->required();
  evaluate->add_option("-o,--out", arguments->out, "Folder of tables and pictures");
  evaluate->add_option("--images", arguments->images, "Folder of the images, for overlays");
  evaluate->add_option("--plan", arguments->plan, "Plan with the names of the classes");
  evaluate
      ->add_option("--tolerance", arguments->evaluation.metrics.tolerances,
                   "Millimetres of the normalised surface distance")
      ->check(CLI::Range(0.0, 1e6));
  evaluate->add_option("--worst", arguments->evaluation.worst, "Cases with pictures")
      ->check(CLI::Range(0, kMostCount));
  evaluate
      ->add_option("--lesion-overlap", arguments->evaluation.metrics.lesion_overlap,
                   "Share of a lesion that must be covered to count as found")
      ->check(CLI::Range(0.0, 1.0));
  chosen(evaluate, run_evaluate);

  auto* crossval = command->add_subcommand("crossval", "Train all folds, judge the held-out cases");
  crossval->add_option("CONFIG", arguments->words, "YAML file, then overrides")->required();
  crossval->add_option("--out", arguments->out, "Folder of the folds (default runs/crossval)");
  add_predict_options(crossval);
  chosen(crossval, run_crossval_arguments);
}

}  // namespace serpentine
