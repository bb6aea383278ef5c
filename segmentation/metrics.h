// How well a predicted mask agrees with the truth, in voxels, millimetres and lesions.
//
// Surfaces are the voxels with a neighbour outside (over a face); distances run from centre to
// centre. Definitions as MONAI's; Reinke et al., "Metrics reloaded", arXiv 2206.01653.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include <torch/types.h>

#include "segmentation/distance.h"

namespace serpentine {

struct MetricOptions {
  std::vector<double> tolerances = {1, 2};  // millimetres, of the normalised surface distance
  double lesion_overlap = 0.1;              // share of a lesion that must be covered
};

/// Of one class in one case. Not a number where a metric is undefined: everything when neither mask
/// has a voxel, distances when one of them has none.
struct MaskMetrics {
  double dice = 0, iou = 0, precision = 0, recall = 0;
  double hd95 = 0, hd = 0, assd = 0;          // millimetres; hd95: the larger of the two directions
  std::vector<double> nsd;                    // one a tolerance
  double volume_truth = 0, volume_guess = 0;  // millilitres
  double volume_error = 0;                    // (guess - truth) / truth
  int64_t lesions = 0, lesions_found = 0, false_lesions = 0;
  double lesion_f1 = 0;
};

/// bool [D, H, W] on the CPU.
MaskMetrics mask_metrics(const torch::Tensor& guess, const torch::Tensor& truth,
                         const Spacing& spacing, const MetricOptions& options = {});

/// Names in the order of `metric_values`: dice, iou, ..., nsd_1mm, ...
std::vector<std::string> metric_names(const MetricOptions& options);
std::vector<double> metric_values(const MaskMetrics& metrics);

}  // namespace serpentine
