// The instance norm on CUDA: tensors as the kernels' plain memory.
#include "core/ops/instance_norm_cuda.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>

#include "core/ops/cuda_memory.h"
#include "core/ops/instance_norm_device.h"

namespace serpentine::cuda {
namespace {

constexpr const char* kInstanceWho = "instance_norm";

/// What both passes read; what `call` points at lives as long as the plan and x.
struct InstancePlan {
  InstancePlan(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b, double slope)
      : weight(w.defined() ? w.contiguous() : w), bias(b.defined() ? b.contiguous() : b) {
    call.element = element_of(x.scalar_type());
    call.channels = x.size(1);
    call.rows = x.size(0) * x.size(1);
    call.size = call.rows > 0 ? x.numel() / call.rows : 0;
    call.slope = static_cast<float>(slope);
    call.x = x.const_data_ptr();
    call.weight = weight.defined() ? weight.const_data_ptr<float>() : nullptr;
    call.bias = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
    if (call.chunks() > 1) {
      parts = at::empty({call.rows, call.chunks(), 2}, x.options().dtype(at::kFloat));
      call.parts = parts.mutable_data_ptr<float>();
    }
  }
  at::Tensor weight, bias, parts;
  InstanceCall call;
};

/// Four values of a pack at once need rows that begin at multiples of their bytes.
at::Tensor aligned(const at::Tensor& x) {
  const auto bytes = static_cast<uintptr_t>(4 * x.element_size());
  const at::Tensor dense = x.contiguous();
  return reinterpret_cast<uintptr_t>(dense.const_data_ptr()) % bytes == 0 ? dense : dense.clone();
}

}  // namespace

bool takes_instances(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const auto type = x.scalar_type();
  const auto plain = [&x](const at::Tensor& one) {
    return !one.defined() || (one.device() == x.device() && one.scalar_type() == at::kFloat &&
                              one.dim() == 1 && one.size(0) == x.size(1));
  };
  return x.is_cuda() && (type == at::kFloat || type == at::kBFloat16 || type == at::kHalf) &&
         x.dim() >= 3 && plain(weight) && plain(bias) && weight.defined() == bias.defined() &&
         x.numel() > x.size(0) * x.size(1);
}

InstanceForward instance_forward_pass(const at::Tensor& x, const at::Tensor& weight,
                                      const at::Tensor& bias, double eps, double slope) {
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor dense = aligned(x);
  InstancePlan plan(dense, weight, bias, slope);
  const auto wide = x.options().dtype(at::kFloat);
  const InstanceForward made = {at::empty_like(dense), at::empty({x.size(0), x.size(1)}, wide),
                                at::empty({x.size(0), x.size(1)}, wide)};
  plan.call.eps = static_cast<float>(eps);
  plan.call.y = made.y.mutable_data_ptr();
  plan.call.mean = made.mean.mutable_data_ptr<float>();
  plan.call.scale = made.scale.mutable_data_ptr<float>();
  check_launch(kInstanceWho, instance_forward(plan.call, stream()));
  return made;
}

InstanceGradients instance_backward_pass(const at::Tensor& x, const at::Tensor& weight,
                                         const at::Tensor& bias, const InstanceForward& made,
                                         const at::Tensor& dy, double slope) {
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor dense = aligned(x), grad = aligned(dy);
  InstancePlan plan(dense, weight, bias, slope);
  const at::Tensor sums = at::empty({x.size(0), x.size(1), 2}, x.options().dtype(at::kFloat));
  InstanceGradients gradients;
  gradients.x = at::empty_like(dense);
  plan.call.mean = made.mean.mutable_data_ptr<float>();
  plan.call.scale = made.scale.mutable_data_ptr<float>();
  plan.call.dy = grad.const_data_ptr();
  plan.call.dx = gradients.x.mutable_data_ptr();
  plan.call.sums = sums.mutable_data_ptr<float>();
  check_launch(kInstanceWho, instance_backward(plan.call, stream()));
  if (weight.defined()) {
    const at::Tensor both = sums.sum(0);
    gradients.bias = both.select(1, 0);
    gradients.weight = both.select(1, 1);
  }
  return gradients;
}

}  // namespace serpentine::cuda
