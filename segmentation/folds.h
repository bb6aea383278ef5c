// Which cases train, validate and test.
#pragma once

#include <vector>

#include "segmentation/cases.h"

namespace serpentine {

struct CaseSplit {
  std::vector<CaseFiles> train, validation, test;
};

/// Cases whose data say "test" are tested, "validation" validated. Of the others `fold` of `folds`
/// validates (-1: none), groups together, in an order that depends on the seed only; where the data
/// have a test or validation part, `validation` of the training cases is held out instead, and only
/// fold 0 (or -1) is taken.
CaseSplit split_cases(const CaseList& list, int64_t folds, int64_t fold, double validation,
                      int64_t seed);

}  // namespace serpentine
