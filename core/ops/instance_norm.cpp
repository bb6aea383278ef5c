#include "core/ops/instance_norm.h"

#include <optional>

#include <torch/torch.h>

#include "core/ops/instance_norm_device.h"
#include "core/ops/traced_scan.h"

namespace serpentine {
namespace {

struct InstanceNormFunction : torch::autograd::Function<InstanceNormFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const std::optional<at::Tensor>& scale,
                            const std::optional<at::Tensor>& shift, double eps, double slope) {
    const at::Tensor weight = scale.value_or(at::Tensor()), bias = shift.value_or(at::Tensor());
    const auto made = cuda::instance_forward_pass(x, weight, bias, eps, slope);
    context->save_for_backward({x, weight, bias, made.mean, made.scale});
    context->saved_data["slope"] = slope;
    return made.y;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto made =
        cuda::instance_backward_pass(saved[0], saved[1], saved[2], {{}, saved[3], saved[4]},
                                     grads[0], context->saved_data["slope"].toDouble());
    return {made.x, made.weight, made.bias, {}, {}};
  }
};

}  // namespace

at::Tensor instance_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         double eps, double slope) {
  if (!is_traced() && cuda::takes_instances(x, weight, bias)) {
    const auto given = [](const at::Tensor& one) {  // an undefined operand is no operand
      return one.defined() ? std::optional<at::Tensor>(one) : std::nullopt;
    };
    return InstanceNormFunction::apply(x.contiguous(), given(weight), given(bias), eps, slope);
  }
  at::Tensor y = at::instance_norm(x, weight, bias, {}, {}, /*use_input_stats=*/true,
                                   /*momentum=*/0.1, eps, /*cudnn_enabled=*/true);
  return slope == 1 ? y : slope == 0 ? at::relu_(y) : at::leaky_relu_(y, slope);
}

}  // namespace serpentine
