// Augmented copies of tiles: the eight positions of a square, and jitter of the stains.
//
// Tellez et al. 2018, "Whole-slide mitosis detection in H&E breast histology using PHH3 as a
// reference to train distilled stain-invariant convolutional networks", IEEE TMI 37(9);
// Ruifrok & Johnston 2001, "Quantification of histochemical staining by color deconvolution".
#pragma once

#include <cstdint>
#include <string>

#include <torch/types.h>

namespace serpentine {

struct TileAugment {
  int64_t copies = 0;  // of each tile beside itself; 0: none
  int64_t seed = 1;
  double stain = 0.05;  // jitter: each stain times 1 +- this, plus +- this, in optical density
};

/// One augmented copy of each tile: uint8 [B, S, S, 3] to the same. corners: int64 [B, 2] of the
/// tiles. A function of the seed, the slide's name, the corner and `copy` alone: neither batches
/// nor threads change it.
torch::Tensor augmented_tiles(const torch::Tensor& pictures, const torch::Tensor& corners,
                              const std::string& slide, int64_t copy, const TileAugment& options);

}  // namespace serpentine
