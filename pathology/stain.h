// Stain normalisation: slides of different laboratories in the colours of one.
//
// Macenko et al. 2009, "A method for normalizing histology slides for quantitative analysis", ISBI;
// Reinhard et al. 2001, "Color transfer between images", IEEE CG&A 21(5). Fitted once a slide, over
// pixels of many tiles, so that pale tiles stay pale.
#pragma once

#include <string>

#include <torch/types.h>

namespace serpentine {

/// Colours of a slide. Macenko: `basis` [3, 2], unit columns haematoxylin and eosin in optical
/// density, and `scale` [2], their 99th percentile. Reinhard: `basis` [3, 1] means and `scale` [3]
/// deviations of CIE L*a*b*. float32.
struct StainFit {
  torch::Tensor basis, scale;
  bool defined() const { return basis.defined(); }
};

class StainNormaliser {
 public:
  /// "macenko" or "reinhard"; the target is a usual H&E slide unless one is set.
  explicit StainNormaliser(const std::string& method);

  /// Of pixels uint8 [N, 3]. Undefined when too few of them are stained.
  StainFit fit(const torch::Tensor& pixels) const;
  void set_target(const StainFit& target) { target_ = target; }
  /// uint8 [..., 3] in the colours of the target; glass stays glass.
  torch::Tensor apply(const torch::Tensor& pictures, const StainFit& fit) const;

 private:
  bool macenko_;
  StainFit target_;
};

}  // namespace serpentine
