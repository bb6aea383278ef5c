// What the folds of a folder began with, so that a later call cannot mix them with others.
#pragma once

#include <cstdint>
#include <string>

#include "apps/run.h"

namespace serpentine {

/// Writes OUT/crossval.json, the whole configuration and the number of folds, while no fold is
/// there. Afterwards throws UsageError with the first key in which `plan` differs, and both values;
/// also where folds lie in OUT that nobody recorded.
void keep_configuration(const Packages& packages, const std::string& out, const RunPlan& plan,
                        int64_t folds);

}  // namespace serpentine
