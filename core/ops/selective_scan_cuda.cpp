// The selective scan on CUDA: tensors as the kernels' plain memory, and the sums that follow.
#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAGuard.h>

#include "core/ops/cuda_memory.h"
#include "core/ops/scan_cuda.h"
#include "core/ops/scan_device.h"

namespace serpentine::cuda {
namespace {

constexpr int64_t kLeastPiece = 256;      // positions; a shorter piece costs more than it spreads
constexpr int64_t kScanWarpsWanted = 12;  // of a multiprocessor, for it to be filled
// More pieces than fill the device even out its last round, while they stay this long.
constexpr int64_t kEvenPiece = 640, kWarpsEven = 48;

/// One call of the kernels, with the tensors that its pointers lie in.
struct Plan {
  Plan(const SelectiveScanArgs& args, const ScanOrder& of, Rows rows)
      : order(of), type(args.u.scalar_type()), wide(args.A.options()) {
    const bool by_token = rows == Rows::kToken;
    call.element = element_of(type);
    call.batch = args.u.size(0);
    call.channels = args.u.size(2);
    call.states = args.A.size(2);
    set_order(call, order);
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
  void* scratch(at::IntArrayRef shape) { return keep(at::empty(shape, wide)).mutable_data_ptr(); }
  int64_t padded() const { return call.layout().padded(); }
  void* slot_states() { return scratch({call.batch, call.slots(), call.channels, padded()}); }

  /// 0 where whole sequences fill the device; else the length that spreads them over it. A cut
  /// sequence costs a second walk for the states between its pieces.
  int64_t piece_length() const {
    const int64_t warps = call.batch * call.sequences * call.channel_blocks() * kWarps;
    if (warps == 0) return 0;
    const int64_t processors = at::cuda::getCurrentDeviceProperties()->multiProcessorCount;
    const int64_t length = call.positions / call.sequences;
    const auto part = [&](int64_t warps_each, int64_t least) {
      const int64_t pieces = std::max<int64_t>(1, warps_each * processors / warps);
      return std::max(least, (length + pieces - 1) / pieces);
    };
    if (kScanWarpsWanted * processors / warps < 4 || length < 2 * kLeastPiece) return 0;
    const int64_t piece =
        std::min(part(kScanWarpsWanted, kLeastPiece), part(kWarpsEven, kEvenPiece));
    return (piece + call.chunk() - 1) / call.chunk() * call.chunk();
  }

  ScanCall call;
  const ScanOrder& order;
  at::ScalarType type;
  at::TensorOptions wide;
  std::vector<at::Tensor> operands;
};

/// Whether the branches' rows are added inside of the kernel.
bool in_planes(const Plan& plan, const ScanOptions& options) {
  return options.output == ScanOutput::kMerged && plan.order.complete &&
         takes_plane(plan.call, plan.order.num_tokens);
}

at::Tensor finish(const GradientRows& gradient, const Plan& plan, bool by_branch) {
  if (!gradient.pending) return gradient.rows;
  return sum_rows(gradient.rows.unsqueeze(0), plan.order, /*visits=*/true, by_branch,
                  /*mean=*/false, plan.type);
}

at::Tensor sum_state_rows(const at::Tensor& parts, const Plan& plan, Rows rows) {
  const bool by_token = rows == Rows::kToken;
  const bool visits = by_token && !plan.order.identity;
  at::Tensor sum =
      sum_rows(parts, plan.order, visits, by_token && visits, /*mean=*/false, plan.type);
  return by_token && !visits ? sum.unsqueeze(2) : sum;
}

}  // namespace

bool is_built() { return true; }

ScanForward forward_pass(const SelectiveScanArgs& args, const ScanOptions& options,
                         const ScanForward& before) {
  const c10::cuda::CUDAGuard guard(args.u.device());
  const ScanOrder& order = options.order;
  Plan plan(args, order, options.rows);
  ScanCall& call = plan.call;
  ScanForward result;
  at::Tensor rows;
  const bool plane = in_planes(plan, options);
  if (plane) {
    call.plane = order.num_tokens;
    call.mean = options.merge == Merge::kMean;
    rows = at::empty({call.batch, order.num_tokens, call.channels}, args.u.options());
  } else if (options.output == ScanOutput::kDirect) {
    const auto type = args.u.options();
    const std::vector<int64_t> shape = {call.batch, order.num_tokens, call.channels};
    rows = order.complete ? at::empty(shape, type) : at::zeros(shape, type);
  } else {
    rows = at::empty({call.batch, call.positions, call.channels}, args.u.options());
  }
  call.y = view_rows(rows, plane || options.output == ScanOutput::kDirect);
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
    const std::vector<int64_t> state = {call.batch, call.slots(), call.channels, plan.padded()};
    call.joined = before.pieces.defined() && before.pieces.sizes() == state;
    result.steps = call.joined ? before.steps
                               : at::empty({call.batch, call.slots(), call.channels}, plan.wide);
    const at::Tensor pieces = call.joined ? before.pieces : plan.keep(at::empty(state, plan.wide));
    call.piece_step = result.steps.mutable_data_ptr();
    call.piece_state = pieces.mutable_data_ptr();
    if (options.keep_pieces) result.pieces = pieces;
  }
  check_launch("selective_scan", plane               ? plane_forward(call, stream())
                                 : takes_pairs(call) ? pair_forward(call, stream())
                                                     : scan_forward(call, stream()));
  result.y = options.output == ScanOutput::kMerged && !plane
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

  const bool plane = in_planes(plan, options);
  if (plane) call.plane = options.order.num_tokens;
  // in a plane the kernel itself adds the branches: a row has one visit, as if they were kept apart
  const GradientRows du(args.u, /*by_branch=*/plane, options, plan.type);
  const GradientRows ddelta(args.delta, /*by_branch=*/true, options, plan.type);
  call.du = view_rows(du.rows, du.by_token);
  call.ddelta = view_rows(ddelta.rows, ddelta.by_token);
  if (!plane) call.pairs = pair_channels(call);
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
  check_launch("selective_scan", plane             ? plane_backward(call, stream())
                                 : call.pairs != 0 ? pair_backward(call, stream())
                                                   : scan_backward(call, stream()));

  result.u = finish(du, plan, /*by_branch=*/false);
  result.delta = finish(ddelta, plan, /*by_branch=*/true);
  result.B = sum_state_rows(dB, plan, options.rows);
  result.C = sum_state_rows(dC, plan, options.rows);
  std::vector<SlotParts> parts = {{call.dA, call.channels, call.states, plan.padded()}};
  if (call.dD) parts.push_back({call.dD, call.channels});
  if (call.dbias) parts.push_back({call.dbias, call.channels});
  const std::vector<at::Tensor> sums = sum_slots(call, parts, plan.wide);
  result.A = sums[0];
  if (call.dD) result.D = sums[1].squeeze(-1);
  if (call.dbias) result.delta_bias = sums.back().squeeze(-1);
  return result;
}

}  // namespace serpentine::cuda
