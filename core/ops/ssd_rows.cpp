#include "core/ops/ssd_rows.h"

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/merge.h"

namespace serpentine {
namespace {

constexpr const char* kSsdRowsWho = "ssd";

void check_types(const SsdArgs& args) {
  const at::ScalarType type = args.x.scalar_type();
  check_float(kSsdRowsWho, args.x, "x");
  const at::ScalarType wide = ssd_wide(args);
  check_dtype(kSsdRowsWho, args.dt, "dt", args.dt.scalar_type() == wide ? wide : type);
  check_dtype(kSsdRowsWho, args.B, "B", type);
  check_dtype(kSsdRowsWho, args.C, "C", type);
  check_dtype(kSsdRowsWho, args.A, "A", wide);
  check_dtype(kSsdRowsWho, args.log_decay, "log_decay", wide);
  check_dtype(kSsdRowsWho, args.D, "D", wide);
  check_dtype(kSsdRowsWho, args.dt_bias, "dt_bias", wide);
  check_dtype(kSsdRowsWho, args.initial_state, "initial_state", wide);
}

/// Rows of [B, T, K, ...] in scan order, each from the branch of its position: [B, P, X].
at::Tensor branch_rows(const at::Tensor& x, const ScanOrder& order) {
  if (order.num_branches == 1) return gather_rows(x.flatten(2), order);
  const int64_t branches = order.num_branches, rows = order.num_tokens * branches;
  const at::Tensor branch = at::arange(branches, order.tokens.options()).unsqueeze(-1);
  const at::Tensor own = at_positions(branch, order).squeeze(-1);  // [P]
  const at::Tensor tokens = at::where(order.tokens >= 0, order.tokens * branches + own, kPad);
  const ScanOrder apart =
      with_tokens(order, tokens.to(at::kInt).contiguous(), rows, order.num_visits());
  return gather_rows(x.flatten(3).flatten(1, 2), apart);
}

}  // namespace

void check_ssd(const SsdArgs& args, const ScanOrder& order, Rows rows) {
  const bool by_token = rows == Rows::kToken;
  check_shape(kSsdRowsWho, args.x, "x",
              {-1, by_token ? order.num_tokens : order.num_positions(), -1, -1},
              by_token ? "B, T, H, E" : "B, P, H, E");
  const int64_t batch = args.x.size(0), heads = args.x.size(2), branches = order.num_branches;
  SERPENTINE_CHECK(args.B.defined() && args.B.dim() == (by_token ? 5 : 4), kSsdRowsWho,
                   "B must be ", by_token ? "[B, T, K, G, N]" : "[B, P, G, N]");
  const int64_t length = args.x.size(1), groups = args.B.size(-2), states = args.B.size(-1);
  SERPENTINE_CHECK(heads >= 1 && args.x.size(3) >= 1, kSsdRowsWho,
                   "x must have at least 1 head of 1 channel");
  SERPENTINE_CHECK(groups >= 1 && heads % groups == 0, kSsdRowsWho,
                   "the groups of B must divide the heads of x, got ", groups, " and ", heads);
  SERPENTINE_CHECK(states >= 1, kSsdRowsWho, "B must have at least 1 state");
  if (by_token) {
    check_shape(kSsdRowsWho, args.dt, "dt", {batch, length, branches, heads}, "B, T, K, H");
    check_shape(kSsdRowsWho, args.B, "B", {batch, length, branches, groups, states},
                "B, T, K, G, N");
    check_shape(kSsdRowsWho, args.C, "C", {batch, length, branches, groups, states},
                "B, T, K, G, N");
  } else {
    check_shape(kSsdRowsWho, args.dt, "dt", {batch, length, heads}, "B, P, H");
    check_shape(kSsdRowsWho, args.B, "B", {batch, length, groups, states}, "B, P, G, N");
    check_shape(kSsdRowsWho, args.C, "C", {batch, length, groups, states}, "B, P, G, N");
  }
  SERPENTINE_CHECK(args.A.defined() != args.log_decay.defined(), kSsdRowsWho,
                   "either A or log_decay must be given");
  if (args.A.defined()) check_shape(kSsdRowsWho, args.A, "A", {branches, heads}, "K, H");
  if (args.log_decay.defined()) {
    check_shape(kSsdRowsWho, args.log_decay, "log_decay", args.dt.sizes(), "as dt");
  }
  if (args.D.defined()) {
    if (args.D.dim() == 3) {
      check_shape(kSsdRowsWho, args.D, "D", {branches, heads, args.x.size(3)}, "K, H, E");
    } else {
      check_shape(kSsdRowsWho, args.D, "D", {branches, heads}, "K, H");
    }
  }
  if (args.dt_bias.defined())
    check_shape(kSsdRowsWho, args.dt_bias, "dt_bias", {branches, heads}, "K, H");
  if (args.initial_state.defined()) {
    check_shape(kSsdRowsWho, args.initial_state, "initial_state",
                {batch, order.num_sequences(), heads, args.x.size(3), states}, "B, S, H, E, N");
  }
  SERPENTINE_CHECK(order.tokens.dim() == 1 || order.tokens.size(0) == batch, kSsdRowsWho,
                   "an order of its own for each sample must have B = ", batch, " rows, got ",
                   order.tokens.size(0));
  SERPENTINE_CHECK(args.chunk >= 0, kSsdRowsWho, "chunk must not be negative, got ", args.chunk);
  SERPENTINE_CHECK(args.dt_min <= args.dt_max, kSsdRowsWho, "dt_min must not exceed dt_max, got ",
                   args.dt_min, " and ", args.dt_max);
  check_types(args);
  check_same_device(kSsdRowsWho, order.tokens, "the order", args.x);
  for (const at::Tensor& tensor : {args.dt, args.A, args.log_decay, args.B, args.C, args.D,
                                   args.dt_bias, args.initial_state}) {
    if (tensor.defined()) check_same_device(kSsdRowsWho, tensor, "every operand", args.x);
  }
}

at::ScalarType ssd_wide(const SsdArgs& args) {
  return args.x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor at_positions(const at::Tensor& parameter, const ScanOrder& order) {
  if (order.num_branches == 1) return parameter;
  const at::Tensor offsets = order.offsets.cpu(), branch = order.branch.cpu();
  std::vector<int64_t> count(static_cast<size_t>(order.num_branches), 0);
  for (int64_t s = 0; s < order.num_sequences(); ++s) {
    count[static_cast<size_t>(branch.data_ptr<int32_t>()[s])] +=
        offsets.data_ptr<int32_t>()[s + 1] - offsets.data_ptr<int32_t>()[s];
  }
  std::vector<at::Tensor> parts;
  for (int64_t k = 0; k < order.num_branches; ++k) {
    std::vector<int64_t> shape(parameter.sizes().begin(), parameter.sizes().end());
    shape[0] = count[static_cast<size_t>(k)];
    parts.push_back(parameter.narrow(0, k, 1).expand(shape));
  }
  return at::cat(parts, 0);
}

at::Tensor as_heads(const at::Tensor& rows, int64_t channels) {
  return rows.reshape({rows.size(0), rows.size(1), rows.size(2) / channels, channels});
}

SsdRows ssd_rows(const SsdArgs& args, const ScanOrder& order, Rows rows) {
  SsdRows made;
  at::Tensor dt = args.dt;
  made.a = args.log_decay;
  if (rows == Rows::kPosition) {
    made.x = args.x;
    made.B = args.B;
    made.C = args.C;
  } else {
    const auto in_order = [&](const at::Tensor& x) {
      const at::Tensor taken = branch_rows(x, order);
      return taken.view({taken.size(0), taken.size(1), x.size(-2), x.size(-1)});
    };
    made.x = as_heads(gather_rows(args.x.flatten(2), order), args.x.size(3));
    made.B = in_order(args.B);
    made.C = in_order(args.C);
    dt = branch_rows(dt, order);
    if (made.a.defined()) made.a = branch_rows(made.a, order);
  }
  made.dt = dt.to(ssd_wide(args));
  if (args.dt_bias.defined()) made.dt = made.dt + at_positions(args.dt_bias, order);
  if (args.dt_softplus) made.dt = at::softplus(made.dt, /*beta=*/1, /*threshold=*/20);
  const bool unlimited = args.dt_softplus && args.dt_min <= 0 && args.dt_max == SsdArgs().dt_max;
  if (!unlimited) made.dt = made.dt.clamp(args.dt_min, args.dt_max);
  if (!made.a.defined()) made.a = made.dt * at_positions(args.A, order);
  return made;
}

}  // namespace serpentine
