#include "apps/segment_demo.h"

#include <chrono>
#include <filesystem>
#include <iostream>

#include <torch/torch.h>

#include "apps/segment_run.h"
#include "apps/training.h"
#include "core/io/image.h"
#include "core/io/progress.h"
#include "segmentation/evaluation.h"

namespace serpentine {

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

  std::cout << "\n== labels for two new cases\n";
  const auto run = open_segment_run(packages, request.out);
  PredictFiles how;
  how.out = out + "/predicted";
  how.overwrite = true;
  if (predict_files({run}, find_images(samples + "/imagesTs", run.plan.in_channels), how) > 0)
    return 1;
  EvaluationOptions options;
  for (size_t k = 1; k < run.plan.values.size(); ++k)
    options.classes.push_back({run.plan.class_names[k], {std::stoll(run.plan.values[k])}});
  if (images_available()) options.images = samples + "/imagesTs";
  const auto found = evaluate_folders(how.out, samples + "/labelsTs", options);
  std::cout << "\n" << summary_text(found, options) << "\n";
  for (const auto& file : write_evaluation(found, options, out + "/report"))
    std::cout << "  " << file << "\n";
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  std::cout << "\nTook " << format_seconds(took.count()) << ". Look at " << out
            << "/report, and try\n  serpentine segment predict " << request.out
            << " some_volume.nii.gz -o labels\n";
  return 0;
}

}  // namespace serpentine
