// Labels of a whole image or volume by a sliding window, in bounded memory.
//
// Windows overlap and are weighed by a Gaussian (Isensee et al., Nature Methods 2021). Outputs are
// summed for the slices under the current row of windows only; finished slices are resampled to
// the file's grid and decided slab by slab, so that no whole volume of outputs ever exists.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <torch/types.h>

#include "core/train/task.h"
#include "segmentation/prepare.h"

namespace serpentine {

struct PredictOptions {
  double step = 0.5;   // of a window, as a share of its size
  bool mirror = true;  // average over mirrored windows (mirror axes: all of the plan's)
  int64_t batch = 1;   // windows at once
  int64_t slab = 0;    // output slices decided at once; 0: about 128 MB
  std::function<void(int64_t done, int64_t all)> progress;  // windows
};

/// Bytes beside the network's own, known before the start.
struct PredictMemory {
  int64_t preparing = 0;  // the file's voxels and the prepared image, before the first window
  int64_t image = 0, sums = 0, slab = 0, windows_now = 0, labels = 0;
  int64_t rules = 0;  // those on connected parts, when the windows are done; rules_memory()
  int64_t windows = 0;
  int64_t total() const {
    return std::max({preparing, image + sums + slab + windows_now + labels, labels + rules});
  }
};
PredictMemory predict_memory(const SegmentationPlan& plan, const Volume& volume,
                             const PredictOptions& options);

/// uint8 [D, H, W] (int16 where values exceed 255): values as label files of the plan hold them, in
/// the volume's own grid. The outputs of several models are averaged. `volume.data` is released
/// when it was prepared, unless `keep`.
torch::Tensor predict_volume(const std::vector<std::shared_ptr<Model>>& models,
                             const SegmentationPlan& plan, Volume& volume, torch::Device device,
                             const PredictOptions& options, bool keep = false);

/// Labels in the values of the plan, written as the training masks have them: multiplied by the
/// plan's label_scale where it has one. The file and place as of write_labels().
void write_prediction(const std::string& file, const torch::Tensor& labels,
                      const SegmentationPlan& plan, const Volume& volume);

/// The reverse, int32. A file whose values lie below half of `scale` was written without it, and is
/// taken as it is.
torch::Tensor read_prediction(const std::string& file, const Volume& volume, double scale);

/// Where windows begin along an axis: evenly, at most step * window apart, the last at the end.
std::vector<int64_t> window_starts(int64_t size, int64_t window, double step);

}  // namespace serpentine
