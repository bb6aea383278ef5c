// The norm with its residual and the gate on CUDA: tensors as the kernels' plain memory.
#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAGuard.h>

#include "core/ops/cuda_memory.h"
#include "core/ops/fused_cuda.h"
#include "core/ops/fused_device.h"

namespace serpentine::cuda {
namespace {

bool is_narrow(at::ScalarType type) {
  return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
}

bool is_aligned(const at::Tensor& rows) {
  const auto bytes = static_cast<uintptr_t>(kVector * rows.element_size());
  return reinterpret_cast<uintptr_t>(rows.const_data_ptr()) % bytes == 0;
}

/// The one distance between the rows of a tensor [..., D], or 0 when there is no such.
int64_t row_distance(const at::Tensor& rows) {
  if (rows.stride(-1) != 1) return 0;
  int64_t distance = 0, expected = 0;
  for (int64_t axis = rows.dim() - 2; axis >= 0; --axis) {
    if (rows.size(axis) == 1) continue;
    if (distance == 0) {
      distance = rows.stride(axis);
    } else if (rows.stride(axis) != expected) {
      return 0;
    }
    expected = rows.stride(axis) * rows.size(axis);
  }
  return distance == 0 ? rows.size(-1) : distance;
}

/// As it is when a kernel can read it, else a dense copy.
at::Tensor readable(const at::Tensor& rows) {
  const int64_t distance = row_distance(rows);
  return distance > 0 && distance % kVector == 0 && is_aligned(rows)
             ? rows
             : rows.clone(at::MemoryFormat::Contiguous);
}

at::Tensor dense_rows(const at::Tensor& rows) {
  const at::Tensor dense = rows.contiguous();
  return is_aligned(dense) ? dense : dense.clone();
}

at::Tensor dense_float(const at::Tensor& tensor) {
  return tensor.defined() ? dense_rows(tensor.to(at::kFloat)) : tensor;
}

/// The operands of one call; what `call` points at lives as long.
struct NormPlan {
  explicit NormPlan(const AddNormArgs& args)
      : x(dense_rows(args.x)),
        residual(args.residual.defined() ? dense_rows(args.residual) : args.residual),
        weight(dense_float(args.weight)),
        bias(dense_float(args.bias)) {
    call.element = element_of(x.scalar_type());
    call.channels = x.size(-1);
    call.rows = x.numel() / call.channels;
    call.layer = args.kind == NormKind::kLayer;
    call.eps = static_cast<float>(args.eps);
    call.x = x.const_data_ptr();
    call.residual = residual.defined() ? residual.const_data_ptr() : nullptr;
    call.weight = weight.const_data_ptr<float>();
    call.bias = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
  }
  at::Tensor x, residual, weight, bias;
  NormCall call;
};

/// The operands of both passes of the gate.
struct GatePlan {
  GatePlan(const at::Tensor& y, const at::Tensor& z) : rows(readable(y)), gate(readable(z)) {
    call.element = element_of(y.scalar_type());
    call.channels = y.size(-1);
    call.rows = call.channels > 0 ? y.numel() / call.channels : 0;
    call.y = rows.const_data_ptr();
    call.z = gate.const_data_ptr();
    call.y_row = row_distance(rows);
    call.z_row = row_distance(gate);
  }
  /// Dense rows of y's shape and type.
  at::Tensor dense() const {
    return at::empty(rows.sizes(), rows.options().memory_format(at::MemoryFormat::Contiguous));
  }
  at::Tensor rows, gate;
  GateCall call;
};

}  // namespace

bool takes(const AddNormArgs& args) {
  const auto type = args.x.scalar_type();
  const int64_t channels = args.x.size(-1);
  const bool residual = !args.residual.defined() ||
                        (args.residual.is_cuda() && (args.residual.scalar_type() == type ||
                                                     args.residual.scalar_type() == at::kFloat));
  return args.x.is_cuda() && args.weight.is_cuda() && is_narrow(type) && residual &&
         args.weight.scalar_type() != at::kDouble && channels % kVector == 0 && channels > 0 &&
         channels <= kWidestNorm;
}

bool takes_gate(const at::Tensor& y, const at::Tensor& z) {
  return y.is_cuda() && z.is_cuda() && is_narrow(y.scalar_type()) &&
         y.scalar_type() == z.scalar_type() && y.dim() >= 1 && y.sizes() == z.sizes() &&
         y.size(-1) % kVector == 0;
}

NormForward norm_forward_pass(const AddNormArgs& args, at::ScalarType kept) {
  const c10::cuda::CUDAGuard guard(args.x.device());
  NormPlan plan(args);
  NormForward made;
  const auto wide = plan.x.options().dtype(at::kFloat);
  made.y = at::empty_like(plan.x);
  made.sum = at::empty(plan.x.sizes(), plan.x.options().dtype(kept));
  made.mean = at::empty({plan.call.rows}, wide);
  made.scale = at::empty({plan.call.rows}, wide);
  plan.call.kept = element_of(kept);
  plan.call.y = made.y.mutable_data_ptr();
  plan.call.sum = made.sum.mutable_data_ptr();
  plan.call.mean = made.mean.mutable_data_ptr<float>();
  plan.call.scale = made.scale.mutable_data_ptr<float>();
  check_launch("add_norm", norm_forward(plan.call, stream()));
  return made;
}

NormGradients norm_backward_pass(const AddNormArgs& args, const NormForward& made,
                                 const at::Tensor& dy, const at::Tensor& dsum) {
  constexpr int64_t kWarpsEach = 16;  // of a multiprocessor: each leaves a row of sums
  const c10::cuda::CUDAGuard guard(args.x.device());
  NormPlan plan(args);
  NormCall& call = plan.call;
  const at::Tensor grad = dense_rows(dy);
  const at::Tensor grad_sum = dsum.defined() ? dense_rows(dsum) : dsum;
  const at::ScalarType kept = args.residual.defined() ? args.residual.scalar_type()
                              : made.sum.defined()    ? made.sum.scalar_type()
                                                      : at::kFloat;
  call.kept = element_of(grad_sum.defined() ? grad_sum.scalar_type() : kept);
  call.warps =
      std::min(call.rows, kWarpsEach * at::cuda::getCurrentDeviceProperties()->multiProcessorCount);
  NormGradients gradients;
  gradients.x = at::empty_like(plan.x);
  const at::Tensor parts =
      at::empty({call.warps, 2, call.channels}, plan.x.options().dtype(at::kFloat));
  call.mean = made.mean.mutable_data_ptr<float>();
  call.scale = made.scale.mutable_data_ptr<float>();
  call.dy = grad.const_data_ptr();
  call.dsum = grad_sum.defined() ? grad_sum.const_data_ptr() : nullptr;
  call.dx = gradients.x.mutable_data_ptr();
  if (args.residual.defined()) {
    gradients.residual = gradients.x;
    if (args.residual.scalar_type() != args.x.scalar_type()) {
      gradients.residual = at::empty_like(plan.residual);
      call.dresidual = gradients.residual.mutable_data_ptr();
    }
  }
  call.parts = parts.mutable_data_ptr<float>();
  check_launch("add_norm", norm_backward(call, stream()));
  const at::Tensor sums = parts.sum(0);
  gradients.weight = sums[0].to(args.weight.scalar_type());
  if (args.bias.defined()) gradients.bias = sums[1].to(args.bias.scalar_type());
  return gradients;
}

at::Tensor gate_forward_pass(const at::Tensor& y, const at::Tensor& z) {
  const c10::cuda::CUDAGuard guard(y.device());
  GatePlan plan(y, z);
  const at::Tensor out = plan.dense();
  plan.call.out = out.mutable_data_ptr();
  check_launch("silu_gate", gate_forward(plan.call, stream()));
  return out;
}

GateGradients gate_backward_pass(const at::Tensor& y, const at::Tensor& z, const at::Tensor& grad) {
  const c10::cuda::CUDAGuard guard(y.device());
  GatePlan plan(y, z);
  const at::Tensor g = readable(grad);
  const GateGradients made = {plan.dense(), plan.dense()};
  plan.call.g = g.const_data_ptr();
  plan.call.g_row = row_distance(g);
  plan.call.dy = made.y.mutable_data_ptr();
  plan.call.dz = made.z.mutable_data_ptr();
  check_launch("silu_gate", gate_backward(plan.call, stream()));
  return made;
}

}  // namespace serpentine::cuda
