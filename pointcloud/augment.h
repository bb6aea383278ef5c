// Changes to clouds that keep their class: what training varies and what votes see.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/data/dataset.h"

namespace serpentine {

struct AugmentOptions {
  double scale_least = 1, scale_most = 1;  // one factor a cloud; each_axis: one an axis
  bool each_axis = false;
  double translate = 0;         // at most, along each axis
  std::string rotate = "none";  // about z, about y, or any way
  double tilt = 0;              // deviation of a further small rotation about each axis, radians
  double jitter = 0;            // deviation of each coordinate, cut at jitter_most
  double jitter_most = 0.05;
  double drop_points = 0;             // at most so many of a cloud's points become its first one
  double drop_features = 0;           // probability that a cloud's features are all 0
  double feature_jitter = 0;          // deviation of features, as colours
  double mirror = 0;                  // probability for x, and again for y
  std::vector<int64_t> turning = {};  // of features: the first of three that rotate, as normals

  void fields(Fields& f);
  void check() const;
};

/// New coordinates and features, drawn from torch's generator of their device, so that a run goes
/// on as if it had not been stopped. batch.input: [B, N, 3].
Batch augmented(const Batch& batch, const AugmentOptions& options);

/// Two clouds as one: the nearest pairs of farthest-apart halves would need an assignment; here
/// each cloud keeps the share `keep` [B] of its points nearest to a random one of them and takes
/// the others from cloud `partner` [B] (rigid subsets). Lee et al., "Regularization strategy for
/// point cloud via rigidly mixed sample", arXiv 2102.01929. Returns the share of its own points:
/// [B].
torch::Tensor mix_clouds(Batch& batch, const torch::Tensor& partner, const torch::Tensor& keep);

}  // namespace serpentine
