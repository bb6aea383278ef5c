// The pictures of a finished training.
#pragma once

#include <string>

#include "apps/run.h"

namespace serpentine {

/// Draws plots/loss and, for forecasters, plots/forecast: the latest window of the data and what
/// came.
void draw_training(const RunPlan& plan, const RunParts& parts, const std::string& folder);

}  // namespace serpentine
