// What an evaluation of a classifier of clouds shows beside its metrics.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "apps/run.h"
#include "pointcloud/cloud_dataset.h"
#include "pointcloud/cloud_task.h"

namespace serpentine {

struct CloudScores {
  torch::Tensor probabilities;  // float32 [n, K], the mean over all votes
  torch::Tensor targets;        // int64 [n]
};

/// Every cloud of a part, in its sequence. The model must be in evaluation mode on `device`.
CloudScores score_clouds(Model& model, const CloudTask& task, const CloudDataset& clouds,
                         int64_t batch_size, torch::Device device);

/// Prints a table of the classes and writes into `folder`: report.csv, confusion.csv, mistakes.csv
/// (the surest wrong answers first), clouds.html (a page to turn: clouds beside one another by
/// class, answer and error, with the traversal `order` of each as a line); where there is OpenCV,
/// also confusion.png and two pictures of that page.
void report_clouds(const CloudScores& scores, const CloudDataset& clouds,
                   const std::vector<std::string>& classes, const std::string& order,
                   const std::string& folder);

/// The metrics of a run's model over clouds, and the report into `folder` unless that is "".
std::map<std::string, double> evaluate_clouds(const RunPlan& plan, const RunParts& parts,
                                              const CloudDataset& clouds, CloudTask& task,
                                              const std::string& folder);

}  // namespace serpentine
