// Classes for every point of a scene of any size, block by block.
#pragma once

#include <functional>

#include "core/train/task.h"

namespace serpentine {

struct SegmentOptions {
  double block = 20;       // side of a block along x and y, in the unit of the points
  double margin = 2;       // around a block, seen but not labelled
  int64_t points = 24576;  // a model sees at once; others get the nearest ones' classes
  int64_t seed = 0;        // of the choice of points
  std::function<void(int64_t done, int64_t all)> progress;  // blocks
};

/// int64 [N]: the class of each point. points: float64 [N, 3], finite; the model maps a Batch of
/// one cloud, moved to its block's least coordinates, to [1, n, classes]. Memory beside the points
/// and classes is that of one block. The model must be in evaluation mode.
torch::Tensor segment_scene(Model& model, const torch::Tensor& points, torch::Device device,
                            const SegmentOptions& options);

}  // namespace serpentine
