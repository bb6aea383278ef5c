// The short causal convolution in front of a mixer's scan, with the samples that decoding carries.
#pragma once

#include <torch/nn/modules/conv.h>

#include "core/scan_order.h"

namespace serpentine {

/// SiLU of the depthwise causal convolution whose parameters `conv1d` holds, read through `order`.
/// x: [B, T, D] -> [B, P, D]. `past`: null, or the last W inputs [B, D, W], which it continues from
/// and replaces by the now last ones.
torch::Tensor short_conv(const torch::nn::Conv1d& conv1d, const torch::Tensor& x,
                         const ScanOrder& order, torch::Tensor* past);

}  // namespace serpentine
