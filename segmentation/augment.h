// Random changes of patches: in space (while they are cut) and of their intensities.
//
// The set and the probabilities of nnU-Net (Isensee et al., Nature Methods 2021, supplementary
// note 4). Everything is a function of the seed.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <torch/types.h>

#include "core/config.h"
#include "core/data/random.h"

namespace serpentine {

struct PatchAugmentOptions {
  bool enabled = true;
  double rotate = 0, rotate_p = 0.2;
  double scale_least = 0.7, scale_most = 1.4, scale_p = 0.2;
  double elastic = 4, elastic_p = 0;
  std::string mirror = "zyx";
  double noise_p = 0.1, blur_p = 0.2, brightness_p = 0.15, contrast_p = 0.15;
  double low_resolution_p = 0.25, gamma_p = 0.3, inverted_gamma_p = 0.1;
  void fields(Fields& f);
};

/// Random numbers of a patch; tensors get a generator of their own.
class Chance : public Random {
 public:
  using Random::Random;
  bool happens(double probability) { return chance(probability); }
  at::Generator generator();
};

struct Patch {
  torch::Tensor image;   // float32 [C, d, h, w]
  torch::Tensor target;  // int32 [d, h, w]
};

/// The patch around `centre` (z, y, x) of a case, rotated, scaled and bent by chance; zeros and
/// class 0 beyond the border. image: [C, D, H, W], target: [D, H, W], size: z, y, x.
Patch cut_patch(const torch::Tensor& image, const torch::Tensor& target,
                const std::array<int64_t, 3>& size, const std::array<int64_t, 3>& centre,
                const PatchAugmentOptions& options, Chance& chance);

/// Without chance: voxels [first, first + size), which may reach beyond the border.
Patch plain_patch(const torch::Tensor& image, const torch::Tensor& target,
                  const std::array<int64_t, 3>& size, const std::array<int64_t, 3>& first);

/// Mirrors, then noise, blur, brightness, contrast, low resolution and gamma.
void vary_patch(Patch& patch, const PatchAugmentOptions& options, Chance& chance);

}  // namespace serpentine
