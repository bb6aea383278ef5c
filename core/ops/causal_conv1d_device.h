// What a device brings to the causal convolution: a forward and a backward pass over tensors. The
// checks before them and the autograd function around them are in causal_conv1d.cpp.
#pragma once

#include "core/ops/causal_conv1d.h"

namespace serpentine {

struct ConvGradients {
  at::Tensor x, weight, bias, initial_state;  // undefined where the operand is; x if wanted
};

namespace cpu {
CausalConv1dResult conv_forward_pass(const CausalConv1dArgs& args, const ScanOrder& order,
                                     bool want_final_state);
/// dy: [B, P, D]; dfinal: [B, S, W - 1, D] or undefined.
ConvGradients conv_backward_pass(const CausalConv1dArgs& args, const ScanOrder& order,
                                 const at::Tensor& dy, const at::Tensor& dfinal, bool want_x);
}  // namespace cpu

namespace cuda {
/// Throw in a build without CUDA (is_built() in scan_device.h).
CausalConv1dResult conv_forward_pass(const CausalConv1dArgs& args, const ScanOrder& order,
                                     bool want_final_state);
ConvGradients conv_backward_pass(const CausalConv1dArgs& args, const ScanOrder& order,
                                 const at::Tensor& dy, const at::Tensor& dfinal, bool want_x);
}  // namespace cuda

}  // namespace serpentine
