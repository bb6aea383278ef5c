#include "core/ops/causal_conv1d.h"

#include <ATen/record_function.h>
#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/causal_conv1d_device.h"
#include "core/ops/merge.h"
#include "core/ops/scan_device.h"
#include "core/ops/traced_scan.h"

namespace serpentine {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kCausalConv1dWho = "causal_conv1d";

void check(const CausalConv1dArgs& args, const ScanOrder& order) {
  const int64_t batch = order.tokens.dim() == 2 ? order.tokens.size(0) : -1;
  check_shape(kCausalConv1dWho, args.x, "x", {batch, order.num_tokens, -1}, "B, T, D");
  SERPENTINE_CHECK(at::isFloatingType(args.x.scalar_type()), kCausalConv1dWho,
                   "x must be of a floating type, got ", args.x.scalar_type());
  check_same_device(kCausalConv1dWho, order.tokens, "the order", args.x);
  check_shape(kCausalConv1dWho, args.weight, "weight", {order.num_branches, args.x.size(2), -1},
              "K, D, W");
  check_same_device(kCausalConv1dWho, args.weight, "weight", args.x);
  const int64_t width = args.weight.size(2);
  SERPENTINE_CHECK(width >= 1 && width <= kMaxConvWidth, kCausalConv1dWho,
                   "the width must be in 1..", kMaxConvWidth, ", got ", width);
  if (args.bias.defined()) {
    check_shape(kCausalConv1dWho, args.bias, "bias", {order.num_branches, args.x.size(2)}, "K, D");
    check_same_device(kCausalConv1dWho, args.bias, "bias", args.x);
  }
  if (args.initial_state.defined()) {
    check_shape(kCausalConv1dWho, args.initial_state, "initial_state",
                {args.x.size(0), order.num_sequences(), width - 1, args.x.size(2)},
                "B, S, W - 1, D");
    check_same_device(kCausalConv1dWho, args.initial_state, "initial_state", args.x);
  }
}

/// Where each sample lies among the P gathered rows followed by the S (W - 1) rows of initial
/// states.
struct Places {
  at::Tensor sequence;        // int64 [P]
  at::Tensor first;           // int64 [S]: the first position of each sequence
  int64_t positions, before;  // P, W - 1

  /// position: int64 [...], sequence: int64 [...] -> row. Positions reach at most W - 1 before
  /// their sequence.
  at::Tensor row(const at::Tensor& position, const at::Tensor& of_sequence) const {
    const at::Tensor start = first.index_select(0, of_sequence.flatten()).view_as(of_sequence);
    const at::Tensor into_state = positions + of_sequence * before + (position - start + before);
    return at::where(position >= start, position, into_state);
  }
};

Places places(const ScanOrder& order, int64_t width) {
  const at::Tensor offsets = order.offsets.to(at::kLong);
  const int64_t positions = order.num_positions();
  const at::Tensor position = at::arange(positions, offsets.options());
  const at::Tensor sequence =
      at::searchsorted(offsets.slice(0, 1), position, /*out_int32=*/false, /*right=*/true);
  return {sequence, offsets.slice(0, 0, order.num_sequences()), positions, width - 1};
}

}  // namespace

CausalConv1dResult causal_conv1d_reference(const CausalConv1dArgs& args, const ScanOrder& order,
                                           bool want_final_state) {
  check(args, order);
  const int64_t batch = args.x.size(0), channels = args.x.size(2), width = args.weight.size(2);
  const int64_t sequences = order.num_sequences();
  const auto wide = args.x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const Places at_places = places(order, width);
  const at::Tensor before =
      args.initial_state.defined()
          ? args.initial_state.flatten(1, 2).to(wide)
          : at::zeros({batch, sequences * (width - 1), channels}, args.x.options().dtype(wide));
  const at::Tensor samples = at::cat({gather_rows(args.x, order).to(wide), before}, 1);

  const at::Tensor branch = order.branch.to(at::kLong).index_select(0, at_places.sequence);
  const at::Tensor weight = args.weight.to(wide).index_select(0, branch);  // [P, D, W]
  const at::Tensor position = at::arange(at_places.positions, branch.options());
  at::Tensor y = args.bias.defined() ? args.bias.to(wide).index_select(0, branch)
                                     : at::zeros({1, channels}, samples.options());
  for (int64_t k = 0; k < width; ++k) {
    const at::Tensor row = at_places.row(position - (width - 1) + k, at_places.sequence);
    y = y + samples.index_select(1, row) * weight.select(2, k);
  }
  if (args.silu) y = at::silu(y);

  CausalConv1dResult result;
  result.y = y.expand({batch, at_places.positions, channels}).to(args.x.scalar_type());
  if (want_final_state) {
    const at::Tensor last = order.offsets.slice(0, 1).to(at::kLong).unsqueeze(1);  // [S, 1]
    const at::Tensor wanted =
        last - (width - 1) + at::arange(width - 1, last.options());  // [S, W - 1]
    const at::Tensor sequence =
        at::arange(sequences, last.options()).unsqueeze(1).expand_as(wanted);
    result.final_state = samples.index_select(1, at_places.row(wanted, sequence).flatten())
                             .view({batch, sequences, width - 1, channels})
                             .to(args.x.scalar_type());
  }
  return result;
}

namespace {

/// Carries the order from forward to backward.
struct KeptConv : torch::CustomClassHolder {
  explicit KeptConv(ScanOrder kept) : order(std::move(kept)) {}
  ScanOrder order;
};

struct CausalConv1d : torch::autograd::Function<CausalConv1d> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x,
                               const at::Tensor& weight,
                               const std::optional<at::Tensor>& maybe_bias,
                               const std::optional<at::Tensor>& maybe_initial,
                               const ScanOrder& order, bool silu, bool want_final_state) {
    const CausalConv1dArgs args{x, weight, maybe_bias.value_or(at::Tensor()),
                                maybe_initial.value_or(at::Tensor()), silu};
    context->set_materialize_grads(false);
    context->save_for_backward({x, weight, args.bias, args.initial_state});
    context->saved_data["order"] = c10::IValue::make_capsule(c10::make_intrusive<KeptConv>(order));
    context->saved_data["silu"] = silu;
    const CausalConv1dResult made = x.is_cuda()
                                        ? cuda::conv_forward_pass(args, order, want_final_state)
                                        : cpu::conv_forward_pass(args, order, want_final_state);
    if (!want_final_state) return {made.y};
    return {made.y, made.final_state};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const CausalConv1dArgs args{saved[0], saved[1], saved[2], saved[3],
                                context->saved_data["silu"].toBool()};
    const auto& order =
        c10::static_intrusive_pointer_cast<KeptConv>(context->saved_data["order"].toCapsule())
            ->order;
    const bool want_x = context->needs_input_grad(0);
    at::Tensor dy = grads[0];
    if (!dy.defined()) {
      dy = at::zeros({args.x.size(0), order.num_positions(), args.x.size(2)}, args.x.options());
    }
    const at::Tensor dfinal = grads.size() > 1 ? grads[1] : at::Tensor();
    const ConvGradients made = args.x.is_cuda()
                                   ? cuda::conv_backward_pass(args, order, dy, dfinal, want_x)
                                   : cpu::conv_backward_pass(args, order, dy, dfinal, want_x);
    return {made.x, made.weight, made.bias, made.initial_state, {}, {}, {}};
  }
};

}  // namespace

CausalConv1dResult causal_conv1d(const CausalConv1dArgs& args, const ScanOrder& order,
                                 bool want_final_state) {
  check(args, order);
  if (is_traced()) return causal_conv1d_reference(args, order, want_final_state);
  RECORD_FUNCTION("serpentine::causal_conv1d",
                  std::vector<c10::IValue>({args.x, args.weight, order.num_positions()}));
  if (!args.x.is_cpu() && !(args.x.is_cuda() && cuda::is_built())) {
    return causal_conv1d_reference(args, order, want_final_state);
  }
  const auto optional = [](const at::Tensor& tensor) {
    return tensor.defined() ? std::make_optional(tensor) : std::nullopt;
  };
  const auto made =
      CausalConv1d::apply(args.x, args.weight, optional(args.bias), optional(args.initial_state),
                          order, args.silu, want_final_state);
  return {made[0], want_final_state ? made[1] : at::Tensor()};
}

}  // namespace serpentine
