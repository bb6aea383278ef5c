#include "core/ops/selective_scan_published.h"

#include <numeric>

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/selective_scan.h"

namespace serpentine {
namespace {

constexpr const char* kScanFn = "selective_scan_fn";
constexpr const char* kScanUpdate = "selective_state_update";

/// The number of groups of B or C; a constant one leaves the choice to the other.
int64_t groups_of(const at::Tensor& x, const char* name, int64_t batch, int64_t channels,
                  int64_t states, int64_t length) {
  SERPENTINE_CHECK(x.defined() && x.dim() >= 2 && x.dim() <= 4, kScanFn, name,
                   " must be [D, N], [B, N, L] or [B, G, N, L]");
  if (x.dim() == 2) {
    check_shape(kScanFn, x, name, {channels, states}, "D, N");
    return 1;
  }
  if (x.dim() == 3) {
    check_shape(kScanFn, x, name, {batch, states, length}, "B, N, L");
    return 1;
  }
  check_shape(kScanFn, x, name, {batch, -1, states, length}, "B, G, N, L");
  SERPENTINE_CHECK(x.size(1) >= 1 && channels % x.size(1) == 0, kScanFn, "the groups of ", name,
                   " must divide D = ", channels, ", got ", x.size(1));
  return x.size(1);
}

/// B or C as rows by position, position (group, l): [B, groups * L, N].
at::Tensor state_rows(const at::Tensor& x, int64_t batch, int64_t groups, int64_t length) {
  at::Tensor rows = (x.dim() == 3 ? x.unsqueeze(1) : x).transpose(2, 3);  // [B, own groups, L, N]
  if (rows.size(1) != groups) {
    rows = rows.unsqueeze(2)
               .expand({batch, rows.size(1), groups / rows.size(1), length, rows.size(3)})
               .flatten(1, 2);
  }
  return rows.reshape({batch, groups * length, rows.size(3)});
}

/// [B, D, L] as rows by position: [B, groups * L, D / groups].
at::Tensor channel_rows(const at::Tensor& x, int64_t groups) {
  const int64_t batch = x.size(0), channels = x.size(1) / groups, length = x.size(2);
  return x.reshape({batch, groups, channels, length})
      .transpose(2, 3)
      .reshape({batch, groups * length, channels});
}

/// One sequence and one branch a group; position (group, l) is a token of its own.
ScanOrder group_order(int64_t groups, int64_t length, at::Device device) {
  ScanOrder order = ragged_order(at::arange(groups + 1) * length).to(device);
  order.branch = at::arange(groups, order.branch.options());
  order.num_branches = groups;
  return order;
}

at::Tensor grouped(const at::Tensor& x, int64_t groups, at::ScalarType type) {
  if (!x.defined()) return x;
  std::vector<int64_t> shape = {groups, x.size(0) / groups};
  if (x.dim() == 2) shape.push_back(x.size(1));
  return x.to(type).reshape(shape);
}

void check_published(const PublishedScanArgs& args) {
  check_shape(kScanFn, args.u, "u", {-1, -1, -1}, "B, D, L");
  check_shape(kScanFn, args.delta, "delta", args.u.sizes(), "B, D, L");
  check_shape(kScanFn, args.A, "A", {args.u.size(1), -1}, "D, N");
  SERPENTINE_CHECK(!args.A.is_complex(), kScanFn, "A must be real, got ", args.A.scalar_type());
  if (args.z.defined()) check_shape(kScanFn, args.z, "z", args.u.sizes(), "B, D, L");
  if (args.D.defined()) check_shape(kScanFn, args.D, "D", {args.u.size(1)}, "D");
  if (args.delta_bias.defined()) {
    check_shape(kScanFn, args.delta_bias, "delta_bias", {args.u.size(1)}, "D");
  }
}

/// The scan of operands that are all u's wide type, without the gate. B and C vary along L.
PublishedScanResult varying_scan(const PublishedScanArgs& args, bool return_last_state) {
  const int64_t batch = args.u.size(0), channels = args.u.size(1), length = args.u.size(2);
  const int64_t states = args.A.size(1);
  const int64_t groups = std::lcm(groups_of(args.B, "B", batch, channels, states, length),
                                  groups_of(args.C, "C", batch, channels, states, length));
  const at::ScalarType wide = args.A.scalar_type();
  SelectiveScanArgs scan;
  scan.u = channel_rows(args.u, groups);
  scan.delta = channel_rows(args.delta, groups);
  scan.A = grouped(args.A, groups, wide);
  scan.B = state_rows(args.B, batch, groups, length);
  scan.C = state_rows(args.C, batch, groups, length);
  scan.D = grouped(args.D, groups, wide);
  scan.delta_bias = grouped(args.delta_bias, groups, wide);
  scan.delta_softplus = args.delta_softplus;
  const auto made = selective_scan(scan, group_order(groups, length, args.u.device()),
                                   Rows::kPosition, Merge::kSum, return_last_state);
  PublishedScanResult result;
  result.out = made.y.reshape({batch, groups, length, channels / groups})
                   .transpose(2, 3)
                   .reshape({batch, channels, length});
  if (return_last_state) result.last_state = made.final_state.reshape({batch, channels, states});
  return result;
}

/// What state n adds to the output, and its last value [B, D, 1]. A constant B or C leaves the scan
/// as a factor of each channel.
PublishedScanResult one_state(const PublishedScanArgs& args, int64_t n, bool return_last_state) {
  const at::Tensor ones =
      at::ones({1, 1, 1}, args.u.options()).expand({args.u.size(0), 1, args.u.size(2)});
  const auto of_state = [&](const at::Tensor& x) {
    return x.dim() == 2 ? ones : x.narrow(x.dim() - 2, n, 1);
  };
  PublishedScanArgs one = args;
  one.A = args.A.narrow(1, n, 1);
  one.B = of_state(args.B);
  one.C = of_state(args.C);
  one.D = at::Tensor();  // added below: the factors must not reach it
  PublishedScanResult made = varying_scan(one, return_last_state);
  const auto scaled = [&](const at::Tensor& y, const at::Tensor& x) {
    return x.dim() == 2 ? y * x.narrow(1, n, 1) : y;
  };
  made.out = scaled(scaled(made.out, args.B), args.C);
  if (return_last_state) made.last_state = scaled(made.last_state, args.B);
  if (n == 0 && args.D.defined()) made.out = made.out + args.u * args.D.unsqueeze(1);
  return made;
}

/// Scans with a constant B or C, a state at a time: rows of B and C for each channel would be
/// B L D N values. The backward pass computes each state's scan again, for the same reason.
struct StateByState : torch::autograd::Function<StateByState> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& u, const at::Tensor& delta,
                                                const at::Tensor& A, const at::Tensor& B,
                                                const at::Tensor& C,
                                                const std::optional<at::Tensor>& D,
                                                const std::optional<at::Tensor>& delta_bias,
                                                bool delta_softplus, bool return_last_state) {
    PublishedScanArgs args{u,
                           delta,
                           A,
                           B,
                           C,
                           D.value_or(at::Tensor()),
                           {},
                           delta_bias.value_or(at::Tensor()),
                           delta_softplus};
    context->save_for_backward({u, delta, A, B, C, args.D, args.delta_bias});
    context->saved_data["softplus"] = delta_softplus;
    context->set_materialize_grads(false);
    at::Tensor out;
    std::vector<at::Tensor> last;
    for (int64_t n = 0; n < A.size(1); ++n) {
      const PublishedScanResult made = one_state(args, n, return_last_state);
      out = out.defined() ? out.add_(made.out) : made.out;
      last.push_back(made.last_state);
    }
    if (!return_last_state) return {out};
    return {out, at::cat(last, 2)};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    torch::autograd::variable_list leaves = context->get_saved_variables();
    for (at::Tensor& leaf : leaves) {
      if (leaf.defined()) leaf = leaf.detach().requires_grad_();
    }
    const PublishedScanArgs args{leaves[0], leaves[1], leaves[2],
                                 leaves[3], leaves[4], leaves[5],
                                 {},        leaves[6], context->saved_data["softplus"].toBool()};
    const bool with_last = grads.size() > 1 && grads[1].defined();
    const c10::AutoGradMode recording(true);
    for (int64_t n = 0; n < args.A.size(1); ++n) {
      const PublishedScanResult made = one_state(args, n, with_last);
      torch::autograd::variable_list results, of_results;
      if (grads[0].defined()) results = {made.out}, of_results = {grads[0]};
      if (with_last) {
        results.push_back(made.last_state);
        of_results.push_back(grads[1].narrow(2, n, 1));
      }
      if (!results.empty()) torch::autograd::backward(results, of_results);
    }
    torch::autograd::variable_list made;
    for (const at::Tensor& leaf : leaves) made.push_back(leaf.defined() ? leaf.grad() : leaf);
    made.resize(9);  // none for the two flags
    return made;
  }
};

PublishedScanResult constant_scan(const PublishedScanArgs& args, bool return_last_state) {
  const auto optional = [](const at::Tensor& x) {
    return x.defined() ? std::optional<at::Tensor>(x) : std::nullopt;
  };
  const auto made =
      StateByState::apply(args.u, args.delta, args.A, args.B, args.C, optional(args.D),
                          optional(args.delta_bias), args.delta_softplus, return_last_state);
  return {made[0], return_last_state ? made[1] : at::Tensor()};
}

}  // namespace

PublishedScanResult selective_scan_fn(const PublishedScanArgs& args, bool return_last_state) {
  check_published(args);
  const int64_t batch = args.u.size(0), channels = args.u.size(1), length = args.u.size(2);
  groups_of(args.B, "B", batch, channels, args.A.size(1), length);
  groups_of(args.C, "C", batch, channels, args.A.size(1), length);
  const at::ScalarType type = args.u.scalar_type();
  const at::ScalarType wide = type == at::kDouble ? at::kDouble : at::kFloat;

  // in fp32, so that the gate's product is rounded once and gradients of what is shared sum in it
  const auto widened = [wide](const at::Tensor& x) { return x.defined() ? x.to(wide) : x; };
  const PublishedScanArgs scan{widened(args.u),
                               widened(args.delta),
                               widened(args.A),
                               widened(args.B),
                               widened(args.C),
                               widened(args.D),
                               {},
                               widened(args.delta_bias),
                               args.delta_softplus};
  const bool constant = args.B.dim() == 2 || args.C.dim() == 2;
  PublishedScanResult result =
      constant ? constant_scan(scan, return_last_state) : varying_scan(scan, return_last_state);
  if (args.z.defined()) result.out = result.out * at::silu(args.z.to(wide));
  result.out = result.out.to(type);
  return result;
}

at::Tensor selective_state_update(at::Tensor& state, const StateUpdateArgs& args) {
  SERPENTINE_CHECK(state.defined() && (state.dim() == 3 || state.dim() == 4), kScanUpdate,
                   "state must be [B, D, N] or [B, H, D, N]");
  const bool heads = state.dim() == 4;
  const auto with_heads = [heads](const at::Tensor& x, int64_t axis) {
    return heads || !x.defined() ? x : x.unsqueeze(axis);
  };
  const at::Tensor old = with_heads(state, 1);  // [B, H, D, N]
  const int64_t batch = old.size(0), count = old.size(1), channels = old.size(2), n = old.size(3);
  const at::Tensor x = with_heads(args.x, 1), A = with_heads(args.A, 0);
  check_shape(kScanUpdate, x, "x", {batch, count, channels}, "B, H, D");
  check_shape(kScanUpdate, args.dt, "dt", args.x.sizes(), "as x");
  check_shape(kScanUpdate, A, "A", {count, channels, n}, "H, D, N");
  const auto by_head = [&](const at::Tensor& rows, const char* name) {
    const at::Tensor groups = with_heads(rows, 1);
    check_shape(kScanUpdate, groups, name, {batch, -1, n}, "B, G, N");
    SERPENTINE_CHECK(groups.size(1) >= 1 && count % groups.size(1) == 0, kScanUpdate,
                     "the groups of ", name, " must divide H = ", count, ", got ", groups.size(1));
    return groups.repeat_interleave(count / groups.size(1), 1).unsqueeze(2);  // [B, H, 1, N]
  };
  const at::ScalarType wide = at::promote_types(A.scalar_type(), state.scalar_type());
  at::Tensor dt = with_heads(args.dt, 1).to(wide);
  if (args.dt_bias.defined()) dt = dt + with_heads(args.dt_bias, 0);
  if (args.dt_softplus) dt = at::softplus(dt, /*beta=*/1, /*threshold=*/20);
  const at::Tensor input = (dt * x.to(wide)).unsqueeze(-1) * by_head(args.B, "B").to(wide);
  const at::Tensor next = old * at::exp(dt.unsqueeze(-1) * A) + input;
  at::Tensor y = (next * by_head(args.C, "C").to(wide)).sum(-1);
  if (args.D.defined()) y = y + x * with_heads(args.D, 0);
  if (args.z.defined()) y = y * at::silu(with_heads(args.z, 1).to(wide));
  state.detach().copy_(heads ? next : next.squeeze(1));
  return (heads ? y : y.squeeze(1)).to(args.x.scalar_type());
}

}  // namespace serpentine
