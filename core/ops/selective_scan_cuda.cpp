// The selective scan on CUDA: tensors as the kernels' plain memory, and the sums that follow.
#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAGuard.h>

#include "core/check.h"
#include "core/ops/scan_cuda.h"
#include "core/ops/scan_device.h"

namespace serpentine::cuda {
namespace {

constexpr int64_t kLongestRow = int64_t{1} << 28;  // elements; see RowsView
constexpr int64_t kLeastPiece = 256;   // positions; a shorter piece costs more than it spreads
constexpr int64_t kWarpsWanted = 12;   // of a multiprocessor

void check_launch(const char* error) {
  SERPENTINE_CHECK(error == nullptr, "selective_scan", "CUDA: ", error);
}

Element element_of(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return Element::kDouble;
    case at::kBFloat16:
      return Element::kBFloat16;
    case at::kHalf:
      return Element::kHalf;
    default:
      return Element::kFloat;
  }
}

/// Dense in the last axis, and with a row stride that 32 bits hold in bytes.
at::Tensor with_dense_rows(const at::Tensor& rows) {
  const bool dense = rows.stride(-1) == 1 || rows.size(-1) == 1;
  return dense && rows.stride(1) < kLongestRow ? rows : rows.contiguous();
}

RowsView view_rows(const at::Tensor& rows, bool by_token) {
  RowsView view;
  view.data = const_cast<void*>(rows.const_data_ptr());
  view.by_token = by_token;
  view.batch = rows.stride(0);
  view.row = static_cast<int32_t>(rows.stride(1));
  view.branch = rows.dim() == 4 ? rows.stride(2) : 0;
  return view;
}

/// One call of the kernels, with the tensors that its pointers lie in.
struct Plan {
  Plan(const SelectiveScanArgs& args, const ScanOrder& of, Rows rows)
      : order(of), type(args.u.scalar_type()), wide(args.A.options()) {
    const bool by_token = rows == Rows::kToken;
    call.element = element_of(type);
    call.batch = args.u.size(0);
    call.positions = order.num_positions();
    call.channels = args.u.size(2);
    call.states = args.A.size(2);
    call.sequences = order.num_sequences();
    call.branches = order.num_branches;
    call.tokens = order.identity ? nullptr : order.tokens.const_data_ptr<int32_t>();
    call.tokens_batch = order.tokens.dim() == 2 ? order.tokens.stride(0) : 0;
    call.offsets = order.offsets.const_data_ptr<int32_t>();
    call.branch = order.branch.const_data_ptr<int32_t>();
    call.softplus = args.delta_softplus;
    call.piece = piece_length();
    call.u = view_rows(keep(with_dense_rows(args.u)), by_token);
    call.delta = view_rows(keep(with_dense_rows(args.delta)), by_token);
    call.B = view_rows(keep(with_dense_rows(args.B)), by_token);
    call.C = view_rows(keep(with_dense_rows(args.C)), by_token);
    call.A = dense(args.A);
    call.D = dense(args.D);
    call.delta_bias = dense(args.delta_bias);
    call.initial_state = dense(args.initial_state);
  }

  at::Tensor keep(at::Tensor tensor) {
    operands.push_back(std::move(tensor));
    return operands.back();
  }
  const void* dense(const at::Tensor& tensor) {
    return tensor.defined() ? keep(tensor.contiguous()).const_data_ptr() : nullptr;
  }
  /// Memory for the length of the call, of A's type.
  void* scratch(at::IntArrayRef shape) {
    return keep(at::empty(shape, wide)).mutable_data_ptr();
  }
  int64_t padded() const { return call.layout().padded(); }
  void* slot_states() { return scratch({call.batch, call.slots(), call.channels, padded()}); }

  /// 0 where whole sequences fill the device; else the length that spreads them over it. A cut
  /// sequence costs a second walk for the states between its pieces.
  int64_t piece_length() const {
    const int64_t warps = call.batch * call.sequences * call.channel_blocks() * kWarps;
    if (warps == 0) return 0;
    const int64_t wanted =
        kWarpsWanted * at::cuda::getCurrentDeviceProperties()->multiProcessorCount;
    const int64_t length = call.positions / call.sequences, pieces = wanted / warps;
    if (pieces < 4 || length < 2 * kLeastPiece) return 0;
    const int64_t piece = std::max(kLeastPiece, (length + pieces - 1) / pieces);
    return (piece + call.chunk() - 1) / call.chunk() * call.chunk();
  }

  ScanCall call;
  const ScanOrder& order;
  at::ScalarType type;
  at::TensorOptions wide;
  std::vector<at::Tensor> operands;
};

void* stream() { return at::cuda::getCurrentCUDAStream().stream(); }

/// parts: [G, B, P, X] -> [B, T, X] or [B, T, K, X], as cpu::sum_visits; without `visits` a token is
/// a position.
at::Tensor sum_rows(const at::Tensor& parts, const ScanOrder& order, bool visits, bool by_branch,
                    bool mean, at::ScalarType type) {
  RowSum sum;
  sum.from = element_of(parts.scalar_type());
  sum.to = element_of(type);
  sum.parts = parts.const_data_ptr();
  sum.groups = parts.size(0);
  sum.batch = parts.size(1);
  sum.positions = parts.size(2);
  sum.tokens = visits ? order.num_tokens : sum.positions;
  sum.width = parts.size(3);
  if (visits) {
    sum.visits = order.visits.const_data_ptr<int32_t>();
    sum.num_visits = order.num_visits();
    sum.visits_batch = order.visits.dim() == 3 ? order.num_tokens * sum.num_visits : 0;
  }
  if (by_branch && order.num_branches > 1) {
    sum.offsets = order.offsets.const_data_ptr<int32_t>();
    sum.branch = order.branch.const_data_ptr<int32_t>();
    sum.sequences = order.num_sequences();
    sum.branches = order.num_branches;
    sum.complete = order.complete;
  }
  sum.mean = mean;
  std::vector<int64_t> shape = {sum.batch, sum.tokens, sum.width};
  if (by_branch) shape.insert(shape.begin() + 2, order.num_branches);
  at::Tensor out = at::empty(shape, parts.options().dtype(type));
  sum.out = out.mutable_data_ptr();
  check_launch(sum_rows(sum, stream()));
  return out;
}

at::Tensor finish(const GradientRows& gradient, const Plan& plan, bool by_branch) {
  if (!gradient.pending) return gradient.rows;
  return sum_rows(gradient.rows.unsqueeze(0), plan.order, /*visits=*/true, by_branch,
                  /*mean=*/false, plan.type);
}

at::Tensor sum_state_rows(const at::Tensor& parts, const Plan& plan, Rows rows) {
  const bool by_token = rows == Rows::kToken;
  const bool visits = by_token && !plan.order.identity;
  at::Tensor sum = sum_rows(parts, plan.order, visits, by_token && visits, /*mean=*/false, plan.type);
  return by_token && !visits ? sum.unsqueeze(2) : sum;
}

/// parts: [B, slots, D, padded width] -> [K, D, width]
at::Tensor sum_slots(const Plan& plan, const void* parts, int64_t width, int64_t padded) {
  const ScanCall& call = plan.call;
  at::Tensor out = at::empty({call.branches, call.channels, width}, plan.wide);
  if (call.batch * call.sequences == 0) return out.zero_();
  SlotSum sum;
  sum.type = element_of(out.scalar_type());
  sum.parts = parts;
  sum.out = out.mutable_data_ptr();
  sum.rows = call.channels;
  sum.width = width;
  sum.padded = padded;
  check_launch(sum_slots(call, sum, stream()));
  return out;
}

}  // namespace

bool is_built() { return true; }

ScanForward forward_pass(const SelectiveScanArgs& args, const ScanOptions& options) {
  const c10::cuda::CUDAGuard guard(args.u.device());
  const ScanOrder& order = options.order;
  Plan plan(args, order, options.rows);
  ScanCall& call = plan.call;
  ScanForward result;
  at::Tensor rows;
  if (options.output == ScanOutput::kDirect) {
    const auto type = args.u.options();
    const std::vector<int64_t> shape = {call.batch, order.num_tokens, call.channels};
    rows = order.complete ? at::empty(shape, type) : at::zeros(shape, type);
  } else {
    rows = at::empty({call.batch, call.positions, call.channels}, args.u.options());
  }
  call.y = view_rows(rows, options.output == ScanOutput::kDirect);
  if (options.want_final_state) {
    result.final_state =
        at::empty({call.batch, call.sequences, call.channels, call.states}, plan.wide);
    call.final_state = result.final_state.mutable_data_ptr();
  }
  if (options.keep_states) {
    result.states =
        at::empty({call.batch, call.saved_slots(), call.channels, plan.padded()}, plan.wide);
    call.saved = result.states.mutable_data_ptr();
  }
  if (call.piece != 0) {
    result.steps = at::empty({call.batch, call.slots(), call.channels}, plan.wide);
    call.piece_step = result.steps.mutable_data_ptr();
    call.piece_state = plan.slot_states();
  }
  check_launch(scan_forward(call, stream()));
  result.y = options.output == ScanOutput::kMerged
                 ? sum_rows(rows.unsqueeze(0), order, /*visits=*/true, /*by_branch=*/false,
                            options.merge == Merge::kMean, plan.type)
                 : rows;
  return result;
}

ScanGradients backward_pass(const SelectiveScanArgs& args, const ScanOptions& options,
                            const ScanForward& kept, const at::Tensor& grad_y,
                            const at::Tensor& grad_state) {
  const c10::cuda::CUDAGuard guard(args.u.device());
  Plan plan(args, options.order, options.rows);
  ScanCall& call = plan.call;
  const at::Tensor dy = with_dense_rows(output_gradient(grad_y, options));
  call.dy = view_rows(dy, options.output != ScanOutput::kPositions);
  call.dfinal = plan.dense(grad_state);
  call.saved = kept.states.mutable_data_ptr();
  if (call.piece != 0) {
    call.piece_step = kept.steps.mutable_data_ptr();
    call.piece_grad = plan.slot_states();
  }

  const GradientRows du(args.u, /*by_branch=*/false, options, plan.type);
  const GradientRows ddelta(args.delta, /*by_branch=*/true, options, plan.type);
  call.du = view_rows(du.rows, du.by_token);
  call.ddelta = view_rows(ddelta.rows, ddelta.by_token);
  const int64_t blocks = call.channel_blocks();
  const at::Tensor dB = at::empty({blocks, call.batch, call.positions, call.states}, plan.wide);
  const at::Tensor dC = at::empty_like(dB);
  call.dB = dB.mutable_data_ptr();
  call.dC = dC.mutable_data_ptr();
  call.dA = plan.slot_states();
  if (args.D.defined()) call.dD = plan.scratch({call.batch, call.slots(), call.channels});
  if (args.delta_bias.defined()) {
    call.dbias = plan.scratch({call.batch, call.slots(), call.channels});
  }
  ScanGradients result;
  if (args.initial_state.defined()) {
    result.initial_state = at::empty(args.initial_state.sizes(), plan.wide);
    call.dinitial = result.initial_state.mutable_data_ptr();
  }
  check_launch(scan_backward(call, stream()));

  result.u = finish(du, plan, /*by_branch=*/false);
  result.delta = finish(ddelta, plan, /*by_branch=*/true);
  result.A = sum_slots(plan, call.dA, call.states, plan.padded());
  result.B = sum_state_rows(dB, plan, options.rows);
  result.C = sum_state_rows(dC, plan, options.rows);
  if (call.dD) result.D = sum_slots(plan, call.dD, 1, 1).squeeze(-1);
  if (call.dbias) result.delta_bias = sum_slots(plan, call.dbias, 1, 1).squeeze(-1);
  return result;
}

}  // namespace serpentine::cuda
