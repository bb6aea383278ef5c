// What training varies in pictures, on tensors: without OpenCV, and the same bits for any number of
// threads, since every choice is a function of (seed, epoch, example, repetition).
#pragma once

#include <string>
#include <vector>

#include "core/config.h"
#include "core/data/dataset.h"
#include "core/data/random.h"
#include "vision/transform.h"

namespace serpentine {

struct ImageAugmentOptions {
  std::string crop = "none";
  std::vector<double> scale = {0.08, 1}, ratio = {0.75, 4.0 / 3};
  int64_t pad = 4;
  double flip = 0, flip_vertical = 0;
  int64_t randaugment = 0;  // operations a picture
  double magnitude = 9, magnitude_deviation = 0.5;
  std::vector<double> jitter;
  double erase = 0;
  double mixup = 0, cutmix = 0, mix = 1, switch_to_cutmix = 0.5;
  void fields(Fields& f);
  void check() const;
  bool mixes() const { return (mixup > 0 || cutmix > 0) && mix > 0; }
};

/// One picture as training sees it: uint8 [H, W, C] -> float32 [C, height, width], normalised.
torch::Tensor augmented(const torch::Tensor& picture, const ImageView& view,
                        const ImageAugmentOptions& options, Random& random);

/// Mixes the examples of a batch in pairs (first with last): mixup (Zhang et al., arXiv 1710.09412)
/// or cutmix (Yun et al., arXiv 1905.04899). Targets int64 [B] become shares float32 [B, classes];
/// a named `weight` is mixed with them.
void mix_batch(Batch& batch, int64_t classes, const ImageAugmentOptions& options, Random& random);

/// RandAugment (Cubuk et al., arXiv 1909.13719) with the fifteen operations and increasing
/// magnitudes of timm, each drawn with probability one half: float32 [C, H, W] in [0, 1] -> the
/// same. Empty corners take `fill` [C].
torch::Tensor rand_augment(torch::Tensor image, int64_t operations, double magnitude,
                           double deviation, const std::vector<double>& fill, Random& random);

/// The names of those operations, and one of them at a magnitude in [0, 10].
std::vector<std::string> rand_augment_operations();
torch::Tensor apply_operation(const std::string& name, const torch::Tensor& image, double magnitude,
                              bool negative, const std::vector<double>& fill);

/// Brightness, contrast, saturation (a share each) and hue (a share of the circle), each drawn
/// around no change, in a drawn sequence.
torch::Tensor colour_jitter(torch::Tensor image, const std::vector<double>& shares, Random& random);

// Blends with black, the mean grey, the grey picture; hue turns by a share of the circle.
torch::Tensor brightened(const torch::Tensor& image, double factor);
torch::Tensor contrasted(const torch::Tensor& image, double factor);
torch::Tensor saturated(const torch::Tensor& image, double factor);
torch::Tensor hue_turned(const torch::Tensor& image, double turn);

}  // namespace serpentine
