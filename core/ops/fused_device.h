// What a GPU brings to the norm with its residual and to the gate: passes over tensors. The
// definitions, the checks and the autograd functions are in norm.cpp and gate.cpp.
#pragma once

#include "core/ops/norm.h"

namespace serpentine::cuda {

/// Whether the kernels take these operands: float32 or 16-bit rows of 4 to 1024 channels, a
/// multiple of 4, in a build with CUDA.
bool takes(const AddNormArgs& args);
/// The same for rows of any such width, of one type and shape.
bool takes_gate(const at::Tensor& y, const at::Tensor& z);

struct NormForward {
  at::Tensor y, sum;       // sum: of the type `kept`
  at::Tensor mean, scale;  // float32 [rows], for the backward pass
};
NormForward norm_forward_pass(const AddNormArgs& args, at::ScalarType kept);

struct NormGradients {
  at::Tensor x, residual, weight, bias;  // undefined where the operand is
};
/// dy, dsum: of the types of y and sum; dsum may be undefined.
NormGradients norm_backward_pass(const AddNormArgs& args, const NormForward& made,
                                 const at::Tensor& dy, const at::Tensor& dsum);

at::Tensor gate_forward_pass(const at::Tensor& y, const at::Tensor& z);
struct GateGradients {
  at::Tensor y, z;
};
GateGradients gate_backward_pass(const at::Tensor& y, const at::Tensor& z, const at::Tensor& grad);

}  // namespace serpentine::cuda
