// What a GPU brings to the instance norm: passes over tensors. The definition, the checks and the
// autograd function are in instance_norm.cpp.
#pragma once

#include <ATen/core/Tensor.h>

namespace serpentine::cuda {

/// Whether the kernels take these operands: float32 or 16-bit images of more than one pixel with
/// float32 weight and bias (or neither), in a build with CUDA.
bool takes_instances(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

struct InstanceForward {
  at::Tensor y;
  at::Tensor mean, scale;  // float32 [B, C], for the backward pass
};
/// x: contiguous.
InstanceForward instance_forward_pass(const at::Tensor& x, const at::Tensor& weight,
                                      const at::Tensor& bias, double eps, double slope);

struct InstanceGradients {
  at::Tensor x, weight, bias;  // undefined where the operand is
};
InstanceGradients instance_backward_pass(const at::Tensor& x, const at::Tensor& weight,
                                         const at::Tensor& bias, const InstanceForward& made,
                                         const at::Tensor& dy, double slope);

}  // namespace serpentine::cuda
