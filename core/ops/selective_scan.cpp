#include "core/ops/selective_scan.h"

#include <ATen/record_function.h>
#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/merge.h"
#include "core/ops/scan_device.h"
#include "core/ops/selective_scan_check.h"
#include "core/ops/traced_scan.h"

namespace serpentine {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Optional = std::optional<at::Tensor>;

Optional optional(const at::Tensor& tensor) {
  return tensor.defined() ? Optional(tensor) : std::nullopt;
}

ScanForward forward_pass(const SelectiveScanArgs& args, const ScanOptions& options) {
  return args.u.is_cuda() ? cuda::forward_pass(args, options) : cpu::forward_pass(args, options);
}

/// Carries what is not a tensor from the forward pass to the backward one.
struct Kept : torch::CustomClassHolder {
  ScanOptions options;
  bool softplus = true;
};

struct Scan : torch::autograd::Function<Scan> {
  static variable_list forward(AutogradContext* context, const at::Tensor& u,
                               const at::Tensor& delta, const at::Tensor& A, const at::Tensor& B,
                               const at::Tensor& C, const Optional& D, const Optional& delta_bias,
                               const Optional& initial_state,
                               const c10::intrusive_ptr<Kept>& kept) {
    const SelectiveScanArgs args{u,
                                 delta,
                                 A,
                                 B,
                                 C,
                                 D.value_or(at::Tensor()),
                                 delta_bias.value_or(at::Tensor()),
                                 initial_state.value_or(at::Tensor()),
                                 kept->softplus};
    const ScanForward result = forward_pass(args, kept->options);
    context->save_for_backward({u, delta, A, B, C, args.D, args.delta_bias, args.initial_state,
                                result.states, result.steps});
    context->saved_data["kept"] = c10::IValue::make_capsule(kept);
    context->set_materialize_grads(false);
    if (!kept->options.want_final_state) return {result.y};
    return {result.y, result.final_state};
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    SERPENTINE_CHECK(!at::GradMode::is_enabled(), "selective_scan",
                     "it has no second derivative (create_graph); use selective_scan_reference");
    const auto kept =
        c10::static_intrusive_pointer_cast<Kept>(context->saved_data["kept"].toCapsule());
    const ScanOptions& options = kept->options;
    const variable_list saved = context->get_saved_variables();
    const SelectiveScanArgs args{saved[0], saved[1], saved[2], saved[3],      saved[4],
                                 saved[5], saved[6], saved[7], kept->softplus};
    if (!grads[0].defined()) {
      const bool by_position = options.output == ScanOutput::kPositions;
      const int64_t rows = by_position ? options.order.num_positions() : options.order.num_tokens;
      grads[0] = at::zeros({args.u.size(0), rows, args.u.size(2)},
                           by_position && args.u.is_cpu() ? args.A.options() : args.u.options());
    }
    ScanForward passed;
    passed.states = saved[8];
    passed.steps = saved[9];
    const at::Tensor grad_state = grads.size() > 1 ? grads[1] : at::Tensor();
    const ScanGradients made =
        args.u.is_cuda() ? cuda::backward_pass(args, options, passed, grads[0], grad_state)
                         : cpu::backward_pass(args, options, passed, grads[0], grad_state);
    return {made.u,          made.delta,         made.A,      made.B, made.C, made.D,
            made.delta_bias, made.initial_state, at::Tensor()};
  }
};

bool needs_gradients(const SelectiveScanArgs& args) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor& tensor :
       {args.u, args.delta, args.A, args.B, args.C, args.D, args.delta_bias, args.initial_state}) {
    if (tensor.defined() && tensor.requires_grad()) return true;
  }
  return false;
}

}  // namespace

ScanOptions scan_options(const ScanOrder& order, Rows rows, Merge merge) {
  ScanOptions options;
  options.order = order;
  options.rows = rows;
  options.merge = merge;
  options.output = order.num_visits() == 1   ? ScanOutput::kDirect
                   : merge == Merge::kConcat ? ScanOutput::kPositions
                                             : ScanOutput::kMerged;
  return options;
}

GradientRows::GradientRows(const at::Tensor& like, bool by_branch, const ScanOptions& options,
                           at::ScalarType pending_type) {
  const ScanOrder& order = options.order;
  const bool one_row_a_visit = order.num_visits() == 1 || (by_branch && order.complete);
  by_token = options.rows == Rows::kToken && one_row_a_visit;
  pending = options.rows == Rows::kToken && !by_token;
  if (pending) {
    rows = at::empty({like.size(0), order.num_positions(), like.size(-1)},
                     like.options().dtype(pending_type));
  } else {
    const bool all_written = options.rows == Rows::kPosition || order.complete;
    rows = all_written ? at::empty(like.sizes(), like.options())
                       : at::zeros(like.sizes(), like.options());
  }
}

at::Tensor output_gradient(const at::Tensor& grad, const ScanOptions& options) {
  at::Tensor rows = grad;
  if (options.output == ScanOutput::kMerged && options.merge == Merge::kMean) {
    const at::Tensor visits = (options.order.visits >= 0).sum(-1, /*keepdim=*/true).clamp_min(1);
    rows = grad / visits.to(grad.scalar_type());
  }
  return rows.stride(-1) == 1 ? rows : rows.contiguous();
}

SelectiveScanResult selective_scan(const SelectiveScanArgs& args, const ScanOrder& order, Rows rows,
                                   Merge merge, bool want_final_state) {
  check_selective_scan(args, order, rows);
  if (is_traced() && !want_final_state) return traced_selective_scan(args, order, rows, merge);
  RECORD_FUNCTION("serpentine::selective_scan",
                  std::vector<c10::IValue>({args.u, args.A, order.num_positions()}));
  if (!args.u.is_cpu() && !(args.u.is_cuda() && cuda::is_built())) {
    return selective_scan_reference(args, order, rows, merge, want_final_state);
  }
  const auto kept = c10::make_intrusive<Kept>();
  ScanOptions& options = kept->options;
  options = scan_options(order, rows, merge);
  options.want_final_state = want_final_state;
  options.keep_states = needs_gradients(args);
  kept->softplus = args.delta_softplus;
  SelectiveScanResult result;
  if (options.keep_states) {
    const variable_list outputs =
        Scan::apply(args.u, args.delta, args.A, args.B, args.C, optional(args.D),
                    optional(args.delta_bias), optional(args.initial_state), kept);
    result.y = outputs[0];
    if (want_final_state) result.final_state = outputs[1];
  } else {
    const ScanForward outputs = forward_pass(args, options);
    result.y = outputs.y;
    result.final_state = outputs.final_state;
  }
  if (options.output == ScanOutput::kPositions) {
    result.y = merge_rows(result.y, order, merge).to(args.u.scalar_type());
  }
  return result;
}

}  // namespace serpentine
