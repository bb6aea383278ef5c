// One training run from its YAML to its folder.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "apps/run.h"

namespace serpentine {

struct TrainRequest {
  std::string config;  // YAML; of a resumed run, the one in its folder
  std::vector<std::string> overrides;
  std::string out;  // run folder; "": runs/<name>, with a number if that is taken
  bool resume = false;
  bool replace = false;  // an earlier run in `out` gives way (demo)
};

/// `request` for a fold in `folder`: anew, or, where an interrupted one left a checkpoint, from
/// there.
TrainRequest fold_request(TrainRequest request, const std::string& folder);

struct TrainResult {
  std::string folder;
  // empty when training was interrupted or there are no test examples
  std::map<std::string, double> test;
  int code = 0;  // what the program returns
};

/// Trains, evaluates on the test part, draws, and says what it does. Every rank of a job calls it.
TrainResult train_run(const Packages& packages, const TrainRequest& request);

/// The task's metrics of a model over a part, in one process.
std::map<std::string, double> evaluate_model(const RunPlan& plan, std::shared_ptr<Model> model,
                                             std::shared_ptr<Task> task, const Dataset& examples);

/// "mse 0.386  mae 0.405".
std::string metrics_text(const std::map<std::string, double>& metrics);

}  // namespace serpentine
