#include "apps/demo_pointcloud.h"

#include <chrono>
#include <cstdio>
#include <iostream>

#include <torch/torch.h>

#include "apps/cloud_report.h"
#include "apps/model_file.h"
#include "apps/training.h"
#include "core/io/progress.h"
#include "core/io/state_dict.h"

namespace serpentine {

int run_pointcloud_demo(const std::string& root, const std::string& out,
                        const std::vector<std::string>& overrides) {
  const auto begin = std::chrono::steady_clock::now();
  const Packages packages = all_packages();
  TrainRequest request;
  request.config = root + "/configs/demo/pointcloud.yaml";
  request.overrides = {"data.path=" + root + "/data/samples/objects/dales.index.csv"};
  request.overrides.insert(request.overrides.end(), overrides.begin(), overrides.end());
  request.out = out + "/pointcloud";
  request.replace = true;
  const TrainResult trained = train_run(packages, request);
  if (trained.code != 0 || trained.test.empty()) return trained.code;

  std::cout << "\n";
  const std::string folder = request.out + "/evaluation_test";
  RunPlan plan = read_plan(packages, yaml_of(request.out));
  const RunParts parts = build_parts(packages, plan);
  load_state_dict(*parts.model, read_state_dict(weights_of_run(request.out)));
  const auto test = parts.source->part(Part::kTest);
  const auto* clouds = dynamic_cast<const CloudDataset*>(test.get());
  auto* task = dynamic_cast<CloudTask*>(parts.task.get());
  TORCH_CHECK(clouds != nullptr && task != nullptr, request.config, ": is not of clouds");
  const auto metrics = evaluate_clouds(plan, parts, *clouds, *task, folder);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  std::printf(
      "\nTest accuracy %.1f %%. Took %s. Open in a browser, and turn\n  %s/clouds.html\nand try\n"
      "  serpentine evaluate %s task.votes=10\n",
      100 * metrics.at("accuracy"), format_seconds(took.count()).c_str(), folder.c_str(),
      request.out.c_str());
  return 0;
}

}  // namespace serpentine
