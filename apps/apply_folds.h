// All folds of a cross-validation on further bags.
#pragma once

#include <string>

#include "apps/packages.h"

namespace serpentine {

/// Every bag of `table` (with files in `features`, if not empty) through the models of
/// OUT/fold_0 .. fold_<folds - 1>: writes the mean of their calibrated probabilities (or risks) and
/// the deviation between folds to `to`. Labels are not needed. Returns the bags.
int64_t apply_folds(const Packages& packages, const std::string& out, int64_t folds,
                    const std::string& table, const std::string& features, const std::string& to);

}  // namespace serpentine
