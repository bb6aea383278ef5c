// The data section of a segmentation run: cases, their plan and folds, patches.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/config.h"
#include "segmentation/augment.h"
#include "segmentation/plan.h"

namespace serpentine {

struct PatchSourceOptions {
  std::string path, images, labels, plan;
  int64_t dims = 0, folds = 5, fold = 0, seed = 0, patches = 500, limit = 0;
  int64_t first_features = 32, batch = 0;
  std::vector<int64_t> patch;
  double memory = 8, foreground = 0.33, validation = 0;
  PatchAugmentOptions augment;
  void fields(Fields& f);
};

/// What the plan is made of where `plan` names none.
PlanOptions plan_options(const PatchSourceOptions& options);

}  // namespace serpentine
