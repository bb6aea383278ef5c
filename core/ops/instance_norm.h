// Instance norm with the leaky ReLU that follows it: the unit of U-Nets for medical images.
//
// Ulyanov et al., "Instance normalization", arXiv 1607.08022; as nnU-Net stacks it.
#pragma once

#include <ATen/core/Tensor.h>

namespace serpentine {

/// Each channel of each example to mean 0 and variance 1 over its pixels, then scale and shift,
/// then x > 0 ? x : slope x. x: [B, C, ...], more than one pixel; weight, bias: [C] or undefined;
/// slope 1: no activation, 0: ReLU. Statistics in fp32. On a GPU the activation costs no pass and
/// no memory, and rows of any length fill the device; elsewhere LibTorch's operators.
/// Differentiable (once on a GPU).
at::Tensor instance_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         double eps = 1e-5, double slope = 1);

}  // namespace serpentine
