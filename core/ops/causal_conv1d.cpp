#include "core/ops/causal_conv1d.h"

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/causal_conv1d_cpu.h"
#include "core/ops/merge.h"

namespace serpentine {
namespace {

constexpr const char* kWho = "causal_conv1d";

void check(const CausalConv1dArgs& args, const ScanOrder& order) {
  const int64_t batch = order.tokens.dim() == 2 ? order.tokens.size(0) : -1;
  check_shape(kWho, args.x, "x", {batch, order.num_tokens, -1}, "B, T, D");
  SERPENTINE_CHECK(at::isFloatingType(args.x.scalar_type()), kWho,
                   "x must be of a floating type, got ", args.x.scalar_type());
  check_same_device(kWho, order.tokens, "the order", args.x);
  check_shape(kWho, args.weight, "weight", {order.num_branches, args.x.size(2), -1}, "K, D, W");
  check_same_device(kWho, args.weight, "weight", args.x);
  const int64_t width = args.weight.size(2);
  SERPENTINE_CHECK(width >= 1 && width <= kMaxConvWidth, kWho, "the width must be in 1..",
                   kMaxConvWidth, ", got ", width);
  if (args.bias.defined()) {
    check_shape(kWho, args.bias, "bias", {order.num_branches, args.x.size(2)}, "K, D");
    check_same_device(kWho, args.bias, "bias", args.x);
  }
  if (args.initial_state.defined()) {
    check_shape(kWho, args.initial_state, "initial_state",
                {args.x.size(0), order.num_sequences(), width - 1, args.x.size(2)},
                "B, S, W - 1, D");
    check_same_device(kWho, args.initial_state, "initial_state", args.x);
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

CausalConv1dResult causal_conv1d(const CausalConv1dArgs& args, const ScanOrder& order,
                                 bool want_final_state) {
  check(args, order);
  return args.x.is_cpu() ? cpu::causal_conv1d(args, order, want_final_state)
                         : causal_conv1d_reference(args, order, want_final_state);
}

}  // namespace serpentine
