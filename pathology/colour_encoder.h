// Features of a tile without a trained network: colour, stain and texture statistics.
//
// A baseline for bags, and what the demo uses where no weights are at hand: 48 numbers a tile.
#pragma once

#include <torch/types.h>

namespace serpentine {

inline constexpr int64_t kColourFeatures = 48;

/// uint8 [B, S, S, 3] to float32 [B, 48]: mean, deviation and three quantiles of the optical
/// density of each channel and of both stains (Ruifrok & Johnston 2001, AQCH 23:291) (25); the
/// strength of their edges at three scales (15); shares of glass, of nuclei and six bins of hue
/// (8).
torch::Tensor colour_features(const torch::Tensor& pictures);

}  // namespace serpentine
