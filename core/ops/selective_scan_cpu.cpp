// The selective scan on a CPU: vectors over channels, threads over samples, sequences and channels.
#include <ATen/ATen.h>

#include "core/ops/scan_device.h"
#include "core/ops/scan_plan.h"
#include "core/ops/visit_sum.h"

namespace serpentine::cpu {
namespace {

at::Tensor finish(const GradientRows& gradient, const ScanOrder& order, bool by_branch,
                  at::ScalarType type) {
  if (!gradient.pending) return gradient.rows;
  return sum_visits(gradient.rows.unsqueeze(0), order, by_branch, /*mean=*/false, type);
}

at::Tensor sum_state_rows(const at::Tensor& parts, const ScanOptions& options,
                          at::ScalarType type) {
  const int64_t batch = parts.size(1), positions = parts.size(2), states = parts.size(3);
  if (options.rows == Rows::kPosition) return sum_parts(parts, type, {batch, positions, states});
  if (options.order.identity) return sum_parts(parts, type, {batch, positions, 1, states});
  return sum_visits(parts, options.order, /*by_branch=*/true, /*mean=*/false, type);
}

}  // namespace

ScanForward forward_pass(const SelectiveScanArgs& args, const ScanOptions& options) {
  const ScanOrder& order = options.order;
  ScanPlan plan(args, order, options.rows);
  ScanCall& call = plan.call;
  const auto wide = args.A.options();
  ScanForward result;
  at::Tensor rows;
  if (options.output == ScanOutput::kDirect) {
    const auto type = args.u.options();
    const std::vector<int64_t> shape = {call.batch, order.num_tokens, call.channels};
    rows = order.complete ? at::empty(shape, type) : at::zeros(shape, type);
  } else {
    rows = at::empty({call.batch, call.positions, call.channels}, wide);
  }
  call.y = view_rows(rows, options.output == ScanOutput::kDirect);
  if (options.want_final_state) {
    result.final_state = at::empty({call.batch, call.sequences, call.channels, call.states}, wide);
    call.final_state = result.final_state.mutable_data_ptr();
  }
  if (options.keep_states) {
    result.states =
        at::empty({call.batch, call.num_saved, call.num_blocks(), call.states, kBlock}, wide);
    call.saved = result.states.mutable_data_ptr();
    if (call.states <= kStatesWithSteps) {
      result.steps = at::empty({call.batch, call.positions, call.channels}, wide);
      call.steps = result.steps.mutable_data_ptr();
    }
  }
  plan.run_forward();
  result.y = options.output == ScanOutput::kMerged
                 ? sum_visits(rows.unsqueeze(0), order, /*by_branch=*/false,
                              options.merge == Merge::kMean, plan.type)
                 : rows;
  return result;
}

ScanGradients backward_pass(const SelectiveScanArgs& args, const ScanOptions& options,
                            const ScanForward& kept, const at::Tensor& grad_y,
                            const at::Tensor& grad_state) {
  ScanPlan plan(args, options.order, options.rows);
  ScanCall& call = plan.call;
  const auto wide = args.A.options();
  const at::Tensor dy = output_gradient(grad_y, options);
  const at::Tensor dfinal = grad_state.defined() ? grad_state.contiguous() : at::Tensor();
  call.saved = kept.states.mutable_data_ptr();
  if (kept.steps.defined()) call.steps = kept.steps.mutable_data_ptr();
  call.dy = view_rows(dy, options.output != ScanOutput::kPositions);
  call.dfinal = dfinal.defined() ? dfinal.const_data_ptr() : nullptr;

  const GradientRows du(args.u, /*by_branch=*/false, options, plan.wide);
  const GradientRows ddelta(args.delta, /*by_branch=*/true, options, plan.wide);
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
  return {finish(du, options.order, /*by_branch=*/false, plan.type),
          finish(ddelta, options.order, /*by_branch=*/true, plan.type),
          sum_slabs(dA, plan.slabs, branches),
          sum_state_rows(dB, options, plan.type),
          sum_state_rows(dC, options, plan.type),
          dD.defined() ? sum_slabs(dD, plan.slabs, branches) : dD,
          dbias.defined() ? sum_slabs(dbias, plan.slabs, branches) : dbias,
          dinitial};
}

}  // namespace serpentine::cpu
