#include "core/ops/selective_scan_check.h"

#include <ATen/ATen.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr const char* kScanCheckWho = "selective_scan";

void check_rows(const SelectiveScanArgs& args, const ScanOrder& order, Rows rows, int64_t states) {
  const int64_t batch = args.u.size(0), channels = args.u.size(2);
  if (rows == Rows::kToken) {
    const int64_t tokens = order.num_tokens, branches = order.num_branches;
    check_shape(kScanCheckWho, args.u, "u", {batch, tokens, channels}, "B, T, D");
    check_shape(kScanCheckWho, args.delta, "delta", {batch, tokens, branches, channels},
                "B, T, K, D");
    check_shape(kScanCheckWho, args.B, "B", {batch, tokens, branches, states}, "B, T, K, N");
    check_shape(kScanCheckWho, args.C, "C", {batch, tokens, branches, states}, "B, T, K, N");
  } else {
    const int64_t positions = order.num_positions();
    check_shape(kScanCheckWho, args.u, "u", {batch, positions, channels}, "B, P, D");
    check_shape(kScanCheckWho, args.delta, "delta", {batch, positions, channels}, "B, P, D");
    check_shape(kScanCheckWho, args.B, "B", {batch, positions, states}, "B, P, N");
    check_shape(kScanCheckWho, args.C, "C", {batch, positions, states}, "B, P, N");
  }
}

}  // namespace

void check_selective_scan(const SelectiveScanArgs& args, const ScanOrder& order, Rows rows) {
  check_shape(kScanCheckWho, args.u, "u", {-1, -1, -1},
              rows == Rows::kToken ? "B, T, D" : "B, P, D");
  const int64_t batch = args.u.size(0), channels = args.u.size(2);
  check_shape(kScanCheckWho, args.A, "A", {order.num_branches, channels, -1}, "K, D, N");
  const int64_t states = args.A.size(2);
  SERPENTINE_CHECK(states >= 1 && states <= 256, kScanCheckWho, "A must have 1 to 256 states, got ",
                   states);
  check_rows(args, order, rows, states);
  if (args.D.defined())
    check_shape(kScanCheckWho, args.D, "D", {order.num_branches, channels}, "K, D");
  if (args.delta_bias.defined()) {
    check_shape(kScanCheckWho, args.delta_bias, "delta_bias", {order.num_branches, channels},
                "K, D");
  }
  if (args.initial_state.defined()) {
    check_shape(kScanCheckWho, args.initial_state, "initial_state",
                {batch, order.num_sequences(), channels, states}, "B, S, D, N");
  }
  SERPENTINE_CHECK(order.tokens.dim() == 1 || order.tokens.size(0) == batch, kScanCheckWho,
                   "an order of its own for each sample must have B = ", batch, " rows, got ",
                   order.tokens.size(0));

  const at::ScalarType type = args.u.scalar_type();
  check_float(kScanCheckWho, args.u, "u");
  const at::ScalarType wide = type == at::kDouble ? at::kDouble : at::kFloat;
  check_dtype(kScanCheckWho, args.delta, "delta", type);
  check_dtype(kScanCheckWho, args.B, "B", type);
  check_dtype(kScanCheckWho, args.C, "C", type);
  check_dtype(kScanCheckWho, args.A, "A", wide);
  check_dtype(kScanCheckWho, args.D, "D", wide);
  check_dtype(kScanCheckWho, args.delta_bias, "delta_bias", wide);
  check_dtype(kScanCheckWho, args.initial_state, "initial_state", wide);
  check_same_device(kScanCheckWho, order.tokens, "the order", args.u);
  for (const at::Tensor& tensor :
       {args.delta, args.A, args.B, args.C, args.D, args.delta_bias, args.initial_state}) {
    if (tensor.defined()) check_same_device(kScanCheckWho, tensor, "every operand", args.u);
  }
}

}  // namespace serpentine
