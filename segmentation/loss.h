// Losses of segmentation: overlap and per-voxel terms, of classes or of regions.
//
// Dice: Milletari et al., arXiv 1606.04797; Tversky: Salehi et al., arXiv 1706.05721; focal: Lin et
// al., arXiv 1708.02002; boundary: Kervadec et al., arXiv 1812.07032.
#pragma once

#include <torch/types.h>

#include "core/config.h"

namespace serpentine {

struct SegmentationLossOptions {
  double dice = 1, ce = 1, focal = 0, tversky = 0, boundary = 0;  // weights of the terms
  bool batch_dice = false;
  double smooth = 1e-5, gamma = 2, alpha = 0.3, beta = 0.7;
  std::vector<double> class_weights;
  void fields(Fields& f);
};

/// Scalar. logits: [B, K, ...]; target: int64 [B, ...], -1 ignored: the class, or with `regions`
/// one bit for each of the K regions. Dice-like terms leave out class 0, unless `regions`.
torch::Tensor segmentation_loss(const torch::Tensor& logits, const torch::Tensor& target,
                                bool regions, const SegmentationLossOptions& options);

/// float32 [B, K, ...] of 0 and 1; ignored voxels are zero everywhere.
torch::Tensor one_hot_target(const torch::Tensor& target, int64_t classes, bool regions);

}  // namespace serpentine
