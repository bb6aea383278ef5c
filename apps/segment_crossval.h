// Cross-validation of segmentations: all folds, the held-out cases, the rules on connected parts.
#pragma once

#include <string>
#include <vector>

#include "apps/segment_run.h"
#include "segmentation/evaluation.h"

namespace serpentine {

struct SegmentCrossval {
  std::string config, out = "runs/crossval";
  std::vector<std::string> overrides;
  PredictFiles predict;
  EvaluationOptions evaluation;
};

/// Trains every fold into OUT/fold_K (finished ones are kept), labels every case by the network
/// that has not seen it into OUT/held_out, writes OUT/report, and gives each fold the rules that
/// help. Returns what the program returns.
int run_segment_crossval(const SegmentCrossval& wanted);

/// Classes of a plan, so that tables carry names.
void use_plan_classes(EvaluationOptions& options, const SegmentationPlan& plan);

/// Prints and, with `out`, writes an evaluation. 1 where cases were left out or are
/// missing, or have no pictures though their images are there.
int report_evaluation(const Evaluation& found, const EvaluationOptions& options,
                      const std::string& out);

}  // namespace serpentine
