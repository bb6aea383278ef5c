#include "core/ops/selective_scan_cpu.h"

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/merge.h"
#include "core/ops/scan_plan.h"
#include "core/ops/visit_sum.h"

namespace serpentine::cpu {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Optional = std::optional<at::Tensor>;

/// How the rows of y leave the kernel.
enum class Output {
  kDirect,     // one visit a token: straight to its row
  kMerged,     // by position, then summed over the visits
  kPositions,  // by position, for the caller to merge
};

struct Options : torch::CustomClassHolder {
  ScanOrder order;
  Rows rows = Rows::kToken;
  Merge merge = Merge::kSum;
  Output output = Output::kDirect;
  bool softplus = true, want_final_state = false, keep_states = false;
};
using OptionsPtr = c10::intrusive_ptr<Options>;

struct Forward {
  at::Tensor y, final_state, saved;
};

Forward forward(const SelectiveScanArgs& args, const Options& options) {
  const ScanOrder& order = options.order;
  ScanPlan plan(args, order, options.rows);
  ScanCall& call = plan.call;
  const auto wide = args.A.options();
  Forward result;
  at::Tensor rows;
  if (options.output == Output::kDirect) {
    const auto type = args.u.options();
    const std::vector<int64_t> shape = {call.batch, order.num_tokens, call.channels};
    rows = order.identity ? at::empty(shape, type) : at::zeros(shape, type);
  } else {
    rows = at::empty({call.batch, call.positions, call.channels}, wide);
  }
  call.y = view_rows(rows, options.output == Output::kDirect);
  if (options.want_final_state) {
    result.final_state = at::empty({call.batch, call.sequences, call.channels, call.states}, wide);
    call.final_state = result.final_state.mutable_data_ptr();
  }
  if (options.keep_states) {
    result.saved =
        at::empty({call.batch, call.num_saved, call.num_blocks(), call.states, kBlock}, wide);
    call.saved = result.saved.mutable_data_ptr();
  }
  plan.run_forward();
  result.y = options.output == Output::kMerged
                 ? sum_visits(rows.unsqueeze(0), order, /*by_branch=*/false,
                              options.merge == Merge::kMean, plan.type)
                 : rows;
  return result;
}

/// The gradient of y as the kernel reads it.
at::Tensor output_rows(const at::Tensor& grad, const Options& options) {
  at::Tensor rows = grad;
  if (options.output == Output::kMerged && options.merge == Merge::kMean) {
    const at::Tensor visits = (options.order.visits >= 0).sum(-1, /*keepdim=*/true).clamp_min(1);
    rows = grad / visits.to(grad.scalar_type());
  }
  return rows.stride(-1) == 1 ? rows : rows.contiguous();
}

/// Gradient rows that lie by token when each token has one row to itself, else by position.
struct GradientRows {
  GradientRows(const at::Tensor& like, const ScanPlan& plan, const Options& options)
      : by_token(options.rows == Rows::kToken && options.order.num_visits() == 1),
        pending(options.rows == Rows::kToken && !by_token) {
    const auto shape = like.sizes();
    const bool all_written = options.rows == Rows::kPosition || options.order.identity;
    if (pending) {
      rows = at::empty({plan.call.batch, plan.call.positions, plan.call.channels},
                       like.options().dtype(plan.wide));
    } else {
      rows = all_written ? at::empty(shape, like.options()) : at::zeros(shape, like.options());
    }
  }
  at::Tensor finish(const ScanOrder& order, bool by_branch, at::ScalarType type) const {
    return pending ? sum_visits(rows.unsqueeze(0), order, by_branch, /*mean=*/false, type) : rows;
  }
  at::Tensor rows;
  bool by_token, pending;
};

at::Tensor sum_state_rows(const at::Tensor& parts, const Options& options, at::ScalarType type) {
  if (options.rows == Rows::kPosition) return sum_parts(parts, type);
  if (options.order.identity) return sum_parts(parts, type).unsqueeze(2);
  return sum_visits(parts, options.order, /*by_branch=*/true, /*mean=*/false, type);
}

/// Gradients of u, delta, A, B, C, D, delta_bias and initial_state.
variable_list backward(const SelectiveScanArgs& args, const Options& options,
                       const at::Tensor& saved, const at::Tensor& grad_y,
                       const at::Tensor& grad_state) {
  ScanPlan plan(args, options.order, options.rows);
  ScanCall& call = plan.call;
  const auto wide = args.A.options();
  const at::Tensor dy = output_rows(grad_y, options);
  const at::Tensor dfinal = grad_state.defined() ? grad_state.contiguous() : at::Tensor();
  call.saved = saved.mutable_data_ptr();
  call.dy = view_rows(dy, options.output != Output::kPositions);
  call.dfinal = dfinal.defined() ? dfinal.const_data_ptr() : nullptr;

  const GradientRows du(args.u, plan, options), ddelta(args.delta, plan, options);
  call.du = view_rows(du.rows, du.by_token);
  call.ddelta = view_rows(ddelta.rows, ddelta.by_token);
  const at::Tensor dA = at::empty({call.batch, call.num_slabs, call.channels, call.states}, wide);
  const at::Tensor dB = at::empty({call.groups, call.batch, call.positions, call.states}, wide);
  const at::Tensor dC = at::empty_like(dB);
  at::Tensor dD, dbias, dinitial;
  call.dA = dA.mutable_data_ptr();
  call.dB = dB.mutable_data_ptr();
  call.dC = dC.mutable_data_ptr();
  if (args.D.defined()) {
    dD = at::empty({call.batch, call.num_slabs, call.channels}, wide);
    call.dD = dD.mutable_data_ptr();
  }
  if (args.delta_bias.defined()) {
    dbias = at::empty({call.batch, call.num_slabs, call.channels}, wide);
    call.dbias = dbias.mutable_data_ptr();
  }
  if (args.initial_state.defined()) {
    dinitial = at::empty(args.initial_state.sizes(), wide);
    call.dinitial = dinitial.mutable_data_ptr();
  }
  plan.run_backward();

  const int64_t branches = options.order.num_branches;
  return {du.finish(options.order, /*by_branch=*/false, plan.type),
          ddelta.finish(options.order, /*by_branch=*/true, plan.type),
          sum_slabs(dA, plan.slabs, branches),
          sum_state_rows(dB, options, plan.type),
          sum_state_rows(dC, options, plan.type),
          dD.defined() ? sum_slabs(dD, plan.slabs, branches) : dD,
          dbias.defined() ? sum_slabs(dbias, plan.slabs, branches) : dbias,
          dinitial};
}

Optional optional(const at::Tensor& tensor) {
  return tensor.defined() ? Optional(tensor) : std::nullopt;
}

struct Scan : torch::autograd::Function<Scan> {
  static variable_list forward(AutogradContext* context, const at::Tensor& u,
                               const at::Tensor& delta, const at::Tensor& A, const at::Tensor& B,
                               const at::Tensor& C, const Optional& D, const Optional& delta_bias,
                               const Optional& initial_state, const OptionsPtr& options) {
    const SelectiveScanArgs args{u,
                                 delta,
                                 A,
                                 B,
                                 C,
                                 D.value_or(at::Tensor()),
                                 delta_bias.value_or(at::Tensor()),
                                 initial_state.value_or(at::Tensor()),
                                 options->softplus};
    const Forward result = cpu::forward(args, *options);
    context->save_for_backward(
        {u, delta, A, B, C, args.D, args.delta_bias, args.initial_state, result.saved});
    context->saved_data["options"] = c10::IValue::make_capsule(options);
    context->set_materialize_grads(false);
    if (!options->want_final_state) return {result.y};
    return {result.y, result.final_state};
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    SERPENTINE_CHECK(!at::GradMode::is_enabled(), "selective_scan",
                     "it has no second derivative (create_graph); use selective_scan_reference");
    const auto options =
        c10::static_intrusive_pointer_cast<Options>(context->saved_data["options"].toCapsule());
    const variable_list kept = context->get_saved_variables();
    const SelectiveScanArgs args{kept[0], kept[1], kept[2], kept[3],          kept[4],
                                 kept[5], kept[6], kept[7], options->softplus};
    if (!grads[0].defined()) {
      const bool by_position = options->output == Output::kPositions;
      const int64_t rows = by_position ? options->order.num_positions() : options->order.num_tokens;
      grads[0] = at::zeros({args.u.size(0), rows, args.u.size(2)},
                           by_position ? args.A.options() : args.u.options());
    }
    const at::Tensor grad_state = grads.size() > 1 ? grads[1] : at::Tensor();
    variable_list result = cpu::backward(args, *options, kept[8], grads[0], grad_state);
    result.emplace_back();  // the options
    return result;
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

SelectiveScanResult selective_scan(const SelectiveScanArgs& args, const ScanOrder& order, Rows rows,
                                   Merge merge, bool want_final_state) {
  auto options = c10::make_intrusive<Options>();
  options->order = order;
  options->rows = rows;
  options->merge = merge;
  options->output = order.num_visits() == 1   ? Output::kDirect
                    : merge == Merge::kConcat ? Output::kPositions
                                              : Output::kMerged;
  options->softplus = args.delta_softplus;
  options->want_final_state = want_final_state;
  options->keep_states = needs_gradients(args);
  SelectiveScanResult result;
  if (options->keep_states) {
    const variable_list outputs =
        Scan::apply(args.u, args.delta, args.A, args.B, args.C, optional(args.D),
                    optional(args.delta_bias), optional(args.initial_state), options);
    result.y = outputs[0];
    if (want_final_state) result.final_state = outputs[1];
  } else {
    const Forward outputs = forward(args, *options);
    result.y = outputs.y;
    result.final_state = outputs.final_state;
  }
  if (options->output == Output::kPositions) {
    result.y = merge_rows(result.y, order, merge).to(args.u.scalar_type());
  }
  return result;
}

}  // namespace serpentine::cpu
