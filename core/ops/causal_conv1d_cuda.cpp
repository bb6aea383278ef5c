// The causal convolution on CUDA: tensors as the kernels' plain memory.
#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAGuard.h>

#include "core/ops/causal_conv1d_device.h"
#include "core/ops/conv_cuda.h"
#include "core/ops/cuda_memory.h"

namespace serpentine::cuda {
namespace {

constexpr const char* kCausalConv1dCudaWho = "causal_conv1d";

struct ConvPlan {
  ConvPlan(const CausalConv1dArgs& args, const ScanOrder& of)
      : order(of),
        type(args.x.scalar_type()),
        wide(args.x.options().dtype(type == at::kDouble ? at::kDouble : at::kFloat)) {
    call.walk.element = element_of(type);
    call.walk.batch = args.x.size(0);
    call.walk.channels = args.x.size(2);
    set_order(call.walk, order);
    call.width = args.weight.size(2);
    call.silu = args.silu;
    call.x = view_rows(keep(with_dense_rows(args.x)), /*by_token=*/true);
    call.weight = dense(args.weight.transpose(1, 2));
    call.bias = dense(args.bias);
    call.before = dense(args.initial_state);
  }
  at::Tensor keep(at::Tensor tensor) {
    operands.push_back(std::move(tensor));
    return operands.back();
  }
  const void* dense(const at::Tensor& tensor) {
    return tensor.defined() ? keep(tensor.to(wide.dtype()).contiguous()).const_data_ptr() : nullptr;
  }
  std::vector<int64_t> state_shape() const {
    return {call.walk.batch, call.walk.sequences, call.width - 1, call.walk.channels};
  }

  ConvCall call;
  const ScanOrder& order;
  at::ScalarType type;
  at::TensorOptions wide;
  std::vector<at::Tensor> operands;
};

}  // namespace

CausalConv1dResult conv_forward_pass(const CausalConv1dArgs& args, const ScanOrder& order,
                                     bool want_final_state) {
  const c10::cuda::CUDAGuard guard(args.x.device());
  ConvPlan plan(args, order);
  const ScanCall& walk = plan.call.walk;
  CausalConv1dResult result;
  result.y = at::empty({walk.batch, walk.positions, walk.channels}, args.x.options());
  plan.call.y = view_rows(result.y, /*by_token=*/false);
  plan.call.walk.piece = conv_run(plan.call, /*backward=*/false);
  at::Tensor after;
  if (want_final_state) {
    after = at::empty(plan.state_shape(), plan.wide);
    plan.call.after = after.mutable_data_ptr();
  }
  check_launch(kCausalConv1dCudaWho, conv_forward(plan.call, stream()));
  if (want_final_state) result.final_state = after.to(plan.type);
  return result;
}

ConvGradients conv_backward_pass(const CausalConv1dArgs& args, const ScanOrder& order,
                                 const at::Tensor& grad, const at::Tensor& dfinal, bool) {
  const c10::cuda::CUDAGuard guard(args.x.device());
  ConvPlan plan(args, order);
  ConvCall& call = plan.call;
  const ScanCall& walk = call.walk;
  const bool direct = order.num_visits() == 1;
  const at::Tensor dy = with_dense_rows(grad);
  call.dy = view_rows(dy, /*by_token=*/false);
  call.dafter = plan.dense(dfinal);
  const std::vector<int64_t> shape = {walk.batch, direct ? order.num_tokens : walk.positions,
                                      walk.channels};
  const at::Tensor dx = direct && !order.complete ? at::zeros(shape, args.x.options())
                                                  : at::empty(shape, args.x.options());
  call.dx = view_rows(dx, direct);
  call.walk.piece = conv_run(call, /*backward=*/true);
  ConvGradients result;
  at::Tensor dbefore;
  if (args.initial_state.defined()) {
    dbefore = at::zeros(plan.state_shape(), plan.wide);
    call.dbefore = dbefore.mutable_data_ptr();
  }
  const at::Tensor parts =
      at::empty({walk.batch, walk.slots(), call.width + 1, walk.channels}, plan.wide);
  call.dweight = parts.mutable_data_ptr();
  check_launch(kCausalConv1dCudaWho, conv_backward(call, stream()));

  result.x = direct ? dx
                    : sum_rows(dx.unsqueeze(0), order, /*visits=*/true, /*by_branch=*/false,
                               /*mean=*/false, plan.type);
  const at::Tensor sums =
      sum_slots(walk, {{call.dweight, (call.width + 1) * walk.channels}}, plan.wide)[0].view(
          {order.num_branches, call.width + 1, walk.channels});
  result.weight = sums.narrow(1, 0, call.width).transpose(1, 2).to(args.weight.scalar_type());
  if (args.bias.defined()) {
    result.bias = sums.select(1, call.width).to(args.bias.scalar_type());
  }
  if (dbefore.defined()) result.initial_state = dbefore.to(args.initial_state.scalar_type());
  return result;
}

}  // namespace serpentine::cuda
