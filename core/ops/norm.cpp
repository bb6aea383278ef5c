#include "core/ops/norm.h"

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/fused_device.h"
#include "core/ops/traced_scan.h"

namespace serpentine {
namespace {

constexpr const char* kNormWho = "add_norm";

void check(const AddNormArgs& args) {
  SERPENTINE_CHECK(args.x.defined() && args.x.dim() >= 1, kNormWho, "x must be [..., D]");
  check_shape(kNormWho, args.weight, "weight", {args.x.size(-1)}, "D");
  if (args.bias.defined()) check_shape(kNormWho, args.bias, "bias", {args.x.size(-1)}, "D");
  if (args.residual.defined())
    check_shape(kNormWho, args.residual, "residual", args.x.sizes(), "..., D");
}

bool is_double(const at::Tensor& tensor) {
  return tensor.defined() && tensor.scalar_type() == at::kDouble;
}

at::Tensor normalise(const at::Tensor& sum, const AddNormArgs& args) {
  const auto wide = sum.scalar_type();
  const at::Tensor weight = args.weight.to(wide);
  const at::Tensor bias = args.bias.defined() ? args.bias.to(wide) : at::Tensor();
  if (args.kind == NormKind::kLayer)
    return at::layer_norm(sum, {sum.size(-1)}, weight, bias, args.eps);
  const at::Tensor y = sum * (sum.square().mean(-1, /*keepdim=*/true) + args.eps).rsqrt() * weight;
  return bias.defined() ? y + bias : y;
}

/// The passes of a GPU. The sum is not kept for the backward pass: it is the operands' again.
struct FusedNorm : torch::autograd::Function<FusedNorm> {
  using Optional = std::optional<at::Tensor>;
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& x, const Optional& residual,
                                                const at::Tensor& weight, const Optional& bias,
                                                bool layer, double eps, at::ScalarType kept) {
    const AddNormArgs args = arguments(x, residual.value_or(at::Tensor()), weight,
                                       bias.value_or(at::Tensor()), layer, eps);
    const cuda::NormForward made = cuda::norm_forward_pass(args, kept);
    context->set_materialize_grads(false);
    context->save_for_backward({x, args.residual, weight, args.bias, made.mean, made.scale});
    context->saved_data["layer"] = layer;
    context->saved_data["eps"] = eps;
    return {made.y, made.sum};
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const AddNormArgs args =
        arguments(saved[0], saved[1], saved[2], saved[3], context->saved_data["layer"].toBool(),
                  context->saved_data["eps"].toDouble());
    cuda::NormForward made;
    made.mean = saved[4];
    made.scale = saved[5];
    const at::Tensor dy = grads[0].defined() ? grads[0] : at::zeros_like(args.x);
    const cuda::NormGradients found = cuda::norm_backward_pass(args, made, dy, grads[1]);
    return {found.x, found.residual, found.weight, found.bias, {}, {}, {}};
  }
  static AddNormArgs arguments(const at::Tensor& x, const at::Tensor& residual,
                               const at::Tensor& weight, const at::Tensor& bias, bool layer,
                               double eps) {
    return {x, residual, weight, bias, layer ? NormKind::kLayer : NormKind::kRms, eps, false};
  }
};

AddNormResult fused_norm(const AddNormArgs& args, at::ScalarType kept) {
  const auto optional = [](const at::Tensor& tensor) {
    return tensor.defined() ? std::make_optional(tensor) : std::nullopt;
  };
  const auto made =
      FusedNorm::apply(args.x, optional(args.residual), args.weight, optional(args.bias),
                       args.kind == NormKind::kLayer, args.eps, kept);
  return {made[0], made[1]};
}

}  // namespace

AddNormResult add_norm(const AddNormArgs& args) {
  check(args);
  const auto narrow = args.x.scalar_type();
  const auto wide = is_double(args.x) || is_double(args.residual) || is_double(args.weight)
                        ? at::kDouble
                        : at::kFloat;
  const auto first = args.residual_in_fp32 ? wide : narrow;
  const auto kept = args.residual.defined() ? args.residual.scalar_type() : first;
  if (!is_traced() && cuda::takes(args)) return fused_norm(args, kept);
  at::Tensor sum = args.x.to(wide);
  if (args.residual.defined()) sum = sum + args.residual.to(wide);
  return {normalise(sum, args).to(narrow), sum.to(kept)};
}

at::Tensor gated_rms_norm(const GatedNormArgs& args) {
  constexpr const char* kGated = "gated_rms_norm";
  SERPENTINE_CHECK(args.x.defined() && args.x.dim() >= 1, kGated, "x must be [..., D]");
  const int64_t channels = args.x.size(-1), group = args.group > 0 ? args.group : channels;
  check_shape(kGated, args.weight, "weight", {channels}, "D");
  if (args.bias.defined()) check_shape(kGated, args.bias, "bias", {channels}, "D");
  if (args.gate.defined()) check_shape(kGated, args.gate, "gate", args.x.sizes(), "..., D");
  SERPENTINE_CHECK(channels % group == 0, kGated, "the group must divide D = ", channels, ", got ",
                   group);
  const auto wide = is_double(args.x) || is_double(args.gate) || is_double(args.weight)
                        ? at::kDouble
                        : at::kFloat;
  const at::Tensor gate = args.gate.defined() ? at::silu(args.gate.to(wide)) : at::Tensor();
  at::Tensor y = args.x.to(wide);
  if (gate.defined() && !args.before_gate) y = y * gate;
  const at::Tensor parts = y.unflatten(-1, {channels / group, group});
  y = (parts * (parts.square().mean(-1, /*keepdim=*/true) + args.eps).rsqrt()).flatten(-2);
  y = y * args.weight.to(wide);
  if (args.bias.defined()) y = y + args.bias.to(wide);
  if (gate.defined() && args.before_gate) y = y * gate;
  return y.to(args.x.scalar_type());
}

}  // namespace serpentine
