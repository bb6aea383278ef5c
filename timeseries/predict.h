// One pass of a trained model over windows, back in the series' own units.
#pragma once

#include "core/train/task.h"
#include "timeseries/schema.h"
#include "timeseries/series.h"

namespace serpentine {

struct Prediction {
  torch::Tensor output;     // as the model gave it, scaled, float32
  torch::Tensor values;     // float64 [B, H, C], on the CPU
  torch::Tensor quantiles;  // float64 [B, H, C, Q], ascending; undefined without quantiles
};

/// Runs the model in eval mode on its own device, without gradients; leaves its mode as it was.
Prediction predict(Model& model, const SeriesSchema& schema, const Batch& batch);

/// float64 [T, C]: the targets in original units, NaN where missing.
torch::Tensor target_values(const SeriesSchema& schema, const Series& series);

}  // namespace serpentine
