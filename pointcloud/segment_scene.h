// Classes for every point of a scene of any size, block by block.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/train/task.h"

namespace serpentine {

/// A scene that need not fit in memory.
struct ScenePoints {
  int64_t size = 0;
  std::function<torch::Tensor(int64_t first, int64_t n)> read;  // float64 [n, 3], finite
};

struct SegmentOptions {
  double block = 20;       // side of a block along x and y, in the unit of the points
  double margin = 2;       // around a block, seen but not labelled
  int64_t points = 24576;  // a model sees at once; others get the nearest ones' classes
  int64_t votes = 1;       // of other points each, turned about z; their probabilities are averaged
  int64_t seed = 0;        // of the choice of points
  std::string folder;      // of working files, by which a stopped run goes on; "": in memory
  std::string made_for;    // what the files in `folder` must have been made for: scene and model
  std::function<void(int64_t done, int64_t all)> progress;  // blocks;
                                                            // first what was done before
};

/// The class of each point, in the scene's sequence.
class SceneClasses {
 public:
  virtual ~SceneClasses() = default;
  virtual torch::Tensor classes(int64_t first, int64_t n) const = 0;  // int64 [n]
};

/// The model maps a Batch of one cloud, moved to its block's least coordinates, to [1, n, classes];
/// it must be in evaluation mode. Memory is that of one block and its margin; the points by block
/// and the classes (34 bytes a point) lie in files under options.folder, which a later call of the
/// same scene, model and options takes up where this one stopped. Errors are c10::Error.
std::unique_ptr<SceneClasses> segment_scene(Model& model, const ScenePoints& scene,
                                            torch::Device device, const SegmentOptions& options);

/// A scene in memory: float64 [N, 3] -> int64 [N].
torch::Tensor segment_scene(Model& model, const torch::Tensor& points, torch::Device device,
                            const SegmentOptions& options);

}  // namespace serpentine
