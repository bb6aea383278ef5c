#include "apps/segment_demo.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include <torch/torch.h>

#include "apps/segment_crossval.h"
#include "apps/segment_run.h"
#include "apps/trained.h"
#include "apps/training.h"
#include "core/io/image.h"
#include "core/io/progress.h"
#include "segmentation/evaluation.h"
#include "segmentation/label_prior.h"

namespace serpentine {
namespace {

/// Labels new volumes without a look at them: what most of the training labels say at each place.
void write_prior(const CaseList& list, const std::vector<CaseFiles>& cases,
                 const std::string& folder) {
  std::vector<torch::Tensor> labels;
  for (const auto& one : list.cases) {
    const Volume place = read_volume(one.label);
    labels.push_back(read_labels(one.label, place));
  }
  make_folder(folder);
  for (const auto& one : cases) {
    const Volume volume = read_channels(one.images);
    write_labels(folder + "/" + one.name + result_ending(one.images[0]),
                 label_prior(labels, volume.size()), volume);
  }
}

/// A line of mean Dice: each class, then all of them.
void say_dice(const char* who, const Evaluation& found) {
  std::printf("%-44s", who);
  double sum = 0;
  for (size_t k = 0; k < found.class_names.size(); ++k) {
    double own = 0;
    for (const auto& one : found.cases) own += one.classes[k].dice;
    own /= static_cast<double>(found.cases.size());
    sum += own;
    std::printf(" %10.4f", own);
  }
  std::printf(" %10.4f\n", sum / static_cast<double>(found.class_names.size()));
}

}  // namespace

int run_segment_demo(const std::string& root, const std::string& out,
                     const std::vector<std::string>& overrides) {
  const Packages packages = all_packages();
  const auto begin = std::chrono::steady_clock::now();
  const std::string samples = root + "/data/samples/hippocampus";
  TrainRequest request;
  request.config = root + "/configs/demo/segmentation.yaml";
  request.overrides = {"data.path=" + samples};
  request.overrides.insert(request.overrides.end(), overrides.begin(), overrides.end());
  request.out = out + "/hippocampus";
  request.replace = true;
  const TrainResult trained = train_run(packages, request);
  if (trained.code != 0) return trained.code;

  std::cout << "\n== labels for two new volumes" << std::endl;
  const auto run = open_segment_run(packages, request.out);
  const auto cases = find_images(samples + "/imagesTs", run.plan.in_channels).cases;
  PredictFiles how;
  how.out = out + "/predicted";
  how.overwrite = true;
  if (predict_files({run}, cases, how) > 0) return 1;
  const std::string prior = out + "/prior";
  write_prior(find_cases(samples), cases, prior);

  EvaluationOptions options;
  use_plan_classes(options, run.plan);
  const std::string truths = samples + "/labelsTs";
  const auto baseline = evaluate_folders(prior, truths, options);
  if (images_available()) options.images = samples + "/imagesTs";
  const auto found = evaluate_folders(how.out, truths, options);
  const auto written = write_evaluation(found, options, out + "/report");

  std::cout << "\n" << summary_text(found, options) << "\n";
  std::printf("%-44s", "mean Dice of the new volumes");
  for (const auto& name : found.class_names) std::printf(" %10s", name.c_str());
  std::printf(" %10s\n", "all");
  say_dice("U-Mamba", found);
  say_dice("no image: the usual label at each place", baseline);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  std::cout << "\nTook " << format_seconds(took.count()) << ". Look at\n";
  for (const auto& file : written.files) std::cout << "  " << file << "\n";
  std::cout << "and try\n  serpentine segment predict " << request.out
            << " some_volume.nii.gz -o labels\n";
  return 0;
}

}  // namespace serpentine
