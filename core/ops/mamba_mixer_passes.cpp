#include "core/ops/mamba_mixer_passes.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include "core/ops/branch_product.h"
#include "core/ops/causal_conv1d_device.h"
#include "core/ops/fused_device.h"

namespace serpentine {
namespace {

// Of a group: kernels read neighbouring channels at once, and a block of the scan takes up to 64.
constexpr int64_t kChannelUnit = 8, kScanUnit = 64;

at::Tensor gated(const at::Tensor& y, const at::Tensor& z) {
  return cuda::takes_gate(y, z) ? cuda::gate_forward_pass(y, z) : y * at::silu(z);
}

cuda::GateGradients gate_gradients(const at::Tensor& y, const at::Tensor& z, const at::Tensor& g) {
  if (cuda::takes_gate(y, z)) return cuda::gate_backward_pass(y, z, g);
  return {g * at::silu(z), at::silu_backward(g * y, z)};
}

/// [..., X] as a matrix; its rows must be dense.
at::Tensor matrix(const at::Tensor& rows) { return rows.reshape({-1, rows.size(-1)}); }

void add(at::Tensor& sum, at::Tensor part) { sum = sum.defined() ? sum.add_(part) : part; }

/// One tensor a group.
using Parts = std::vector<at::Tensor>;
void add_part(Parts& parts, size_t group, at::Tensor part) {
  if (parts.size() <= group) parts.resize(group + 1);
  add(parts[group], std::move(part));
}
at::Tensor joined(const Parts& parts, int64_t axis) {
  return parts.size() == 1 ? parts[0] : at::cat(parts, axis);
}

}  // namespace

/// Gradients while the groups are walked.
struct MixerPasses::Sums {
  at::Tensor h;        // [B T, C]
  at::Tensor r, B, C;  // [B, P, R], [B, P, N]
  Parts in_x, in_z, in_x_bias, in_z_bias, conv, conv_bias, x_proj, dt_proj, dt_bias, A_log, D;
  Parts out_proj;
};

at::Tensor MixerPasses::Group::of(const at::Tensor& tensor, int64_t axis) const {
  return tensor.defined() ? tensor.narrow(axis, first, count) : tensor;
}

MixerPasses::MixerPasses(const MambaMixerArgs& args, const ScanOrder& order,
                         const MambaMixerOptions& options)
    : args_(args),
      options_(options),
      scan_(scan_options(order, Rows::kPosition, options.merge)),
      rank_(args.dt_proj.size(2)),
      states_(args.A_log.size(2)) {
  const auto wide = args.h.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  A_ = args.A_log.to(wide).exp().neg_();
  const int64_t inner = args.D.size(1);
  const int64_t count = std::max<int64_t>(1, options.groups);
  int64_t width = (inner + count - 1) / count;
  const int64_t unit = width > kScanUnit ? kScanUnit : kChannelUnit;
  width = (width + unit - 1) / unit * unit;
  for (int64_t first = 0; first < inner; first += width)
    groups_.push_back({first, std::min(width, inner - first), groups_.size()});
}

at::Tensor MixerPasses::entered(const Group& group, bool is_gate) const {
  const Group rows{group.first + (is_gate ? args_.D.size(1) : 0), group.count, group.number};
  return at::linear(args_.h, rows.of(args_.in_proj, 0), rows.of(args_.in_bias, 0));
}

namespace {

CausalConv1dArgs conv_args(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  CausalConv1dArgs conv;
  conv.x = x;
  conv.weight = weight;
  conv.bias = bias;
  conv.silu = true;
  return conv;
}

}  // namespace

at::Tensor MixerPasses::convolved(const at::Tensor& x, const Group& group) const {
  const auto conv = conv_args(x, group.of(args_.conv, 1), group.of(args_.conv_bias, 1));
  RECORD_FUNCTION("serpentine::causal_conv1d",
                  std::vector<c10::IValue>({x, conv.weight, scan_.order.num_positions()}));
  return (x.is_cuda() ? cuda::conv_forward_pass(conv, scan_.order, false)
                      : cpu::conv_forward_pass(conv, scan_.order, false))
      .y;
}

SelectiveScanArgs MixerPasses::operands(const MixerMade& made, const at::Tensor& steps,
                                        const Group& group) const {
  SelectiveScanArgs scan;
  scan.u = made.u;
  scan.delta = made.delta;
  scan.A = group.of(A_, 1);
  scan.B = steps.narrow(2, rank_, states_);
  scan.C = steps.narrow(2, rank_ + states_, states_);
  scan.D = group.of(args_.D, 1).to(A_.scalar_type());
  scan.delta_bias = group.of(args_.dt_bias, 1).to(A_.scalar_type());
  return scan;
}

/// What is missing in `made` up to the scan's output.
void MixerPasses::make(MixerMade& made, const at::Tensor& steps, const Group& group,
                       const ScanForward& before) const {
  if (!made.x.defined()) made.x = entered(group, /*is_gate=*/false);
  if (!made.u.defined()) made.u = convolved(made.x, group);
  if (!made.delta.defined()) {
    made.delta = at::empty(made.u.sizes(), made.u.options());
    branch_product(made.delta, steps.narrow(2, 0, rank_),
                   group.of(args_.dt_proj, 1).transpose(1, 2), options_.sizes, /*add=*/false);
  }
  if (made.scan.y.defined()) return;
  const SelectiveScanArgs scan = operands(made, steps, group);
  RECORD_FUNCTION("serpentine::selective_scan",
                  std::vector<c10::IValue>({scan.u, scan.A, scan_.order.num_positions()}));
  made.scan =
      made.u.is_cuda() ? cuda::forward_pass(scan, scan_, before) : cpu::forward_pass(scan, scan_);
}

at::Tensor MixerPasses::forward(at::Tensor& steps, MixerMade* kept) {
  const bool whole = groups_.size() == 1;
  scan_.keep_states = kept != nullptr && options_.keep != MixerKeep::kNothing && whole;
  scan_.keep_pieces = kept != nullptr && !scan_.keep_states;
  const int64_t batch = args_.h.size(0), positions = scan_.order.num_positions();
  steps = at::empty({batch, positions, rank_ + 2 * states_}, args_.h.options());
  MixerMade made;
  if (whole) {
    const auto halves = at::linear(args_.h, args_.in_proj, args_.in_bias).chunk(2, -1);
    made.x = halves[0];
    made.z = halves[1];
  }
  Parts xs(groups_.size());  // held from here to the second walk
  for (const Group& group : groups_) {
    const at::Tensor x = whole ? made.x : entered(group, /*is_gate=*/false);
    const at::Tensor u = convolved(x, group);
    branch_product(steps, u, group.of(args_.x_proj, 2).transpose(1, 2), options_.sizes,
                   /*add=*/group.first > 0);
    if (whole) made.u = u;
    if (!options_.lean) xs[group.number] = x;
  }
  at::Tensor out;  // [B T, E]
  for (const Group& group : groups_) {
    if (!whole) {
      made = MixerMade();
      made.x = std::move(xs[group.number]);
    }
    make(made, steps, group);
    const bool drops = !scan_.keep_states || options_.keep == MixerKeep::kScan;
    if (drops) made.x = made.u = made.delta = at::Tensor();
    if (!made.z.defined()) made.z = entered(group, /*is_gate=*/true);
    const at::Tensor rows = matrix(gated(made.scan.y, made.z));
    if (scan_.keep_pieces) kept->cuts.insert(kept->cuts.end(), {made.scan.pieces, made.scan.steps});
    if (scan_.keep_states) {
      if (options_.keep == MixerKeep::kScan) made.z = at::Tensor();
      *kept = made;
    }
    const at::Tensor weight = group.of(args_.out_proj, 1);
    if (!out.defined()) {
      out = at::linear(rows, weight, args_.out_bias);
    } else {
      out.addmm_(rows, weight.t());
    }
  }
  return out.view({batch, args_.h.size(1), out.size(1)});
}

/// What the gradient of x or z is for h and the projection in.
void MixerPasses::into_h(const at::Tensor& grad, const Group& group, bool is_gate,
                         Sums& sums) const {
  const Group rows{group.first + (is_gate ? args_.D.size(1) : 0), group.count, group.number};
  const at::Tensor g = matrix(grad), weight = rows.of(args_.in_proj, 0);
  const size_t number = group.number;
  add_part(is_gate ? sums.in_z : sums.in_x, number, at::mm(g.t(), matrix(args_.h)));
  if (args_.in_bias.defined())
    add_part(is_gate ? sums.in_z_bias : sums.in_x_bias, number, g.sum(0));
  if (sums.h.defined()) {
    sums.h.addmm_(g, weight);
  } else {
    sums.h = at::mm(g, weight);
  }
}

/// dy: [B, T, E] -> [B, T, w], the gradient of the scan's output.
void MixerPasses::gate_back(MixerMade& made, at::Tensor& dy, const Group& group, Sums& sums) const {
  if (!made.z.defined()) made.z = entered(group, /*is_gate=*/true);
  const at::Tensor rows = matrix(dy);
  sums.out_proj.push_back(at::mm(rows.t(), matrix(gated(made.scan.y, made.z))));
  const at::Tensor dgated = at::mm(rows, group.of(args_.out_proj, 1)).view(made.z.sizes());
  const cuda::GateGradients both = gate_gradients(made.scan.y, made.z, dgated);
  made.scan.y = made.z = at::Tensor();
  into_h(both.z, group, /*is_gate=*/true, sums);
  dy = both.y;
}

/// dy: the gradient of the scan's output -> that of u, [B, P, w].
void MixerPasses::scan_back(MixerMade& made, at::Tensor& dy, const at::Tensor& steps,
                            const Group& group, Sums& sums) const {
  const SelectiveScanArgs scan = operands(made, steps, group);
  ScanGradients grads = made.u.is_cuda()
                            ? cuda::backward_pass(scan, scan_, made.scan, dy, at::Tensor())
                            : cpu::backward_pass(scan, scan_, made.scan, dy, at::Tensor());
  dy = grads.u;
  made.scan = ScanForward();
  made.delta = at::Tensor();
  const bool first = !sums.r.defined();
  if (first) sums.r = at::empty({steps.size(0), steps.size(1), rank_}, steps.options());
  branch_product(sums.r, grads.delta, group.of(args_.dt_proj, 1), options_.sizes, !first);
  sums.dt_proj.push_back(branch_gram(grads.delta, steps.narrow(2, 0, rank_), options_.sizes));
  add(sums.B, grads.B);
  add(sums.C, grads.C);
  sums.A_log.push_back(grads.A.mul_(scan.A));
  sums.D.push_back(grads.D);
  sums.dt_bias.push_back(grads.delta_bias);
}

/// What the gradient of the steps is for u, added to du (undefined: made).
void MixerPasses::steps_back(const at::Tensor& u, at::Tensor& du, const at::Tensor& dsteps,
                             const Group& group, Sums& sums) const {
  add_part(sums.x_proj, group.number, branch_gram(dsteps, u, options_.sizes));
  const bool adds = du.defined();
  if (!adds) du = at::empty(u.sizes(), u.options());
  branch_product(du, dsteps, group.of(args_.x_proj, 2), options_.sizes, adds);
}

void MixerPasses::convolution_back(at::Tensor& x, at::Tensor& du, const Group& group,
                                   Sums& sums) const {
  const auto conv = conv_args(x, group.of(args_.conv, 1), group.of(args_.conv_bias, 1));
  const ConvGradients grads = x.is_cuda()
                                  ? cuda::conv_backward_pass(conv, scan_.order, du, {}, true)
                                  : cpu::conv_backward_pass(conv, scan_.order, du, {}, true);
  du = x = at::Tensor();
  add_part(sums.conv, group.number, grads.weight);
  if (grads.bias.defined()) add_part(sums.conv_bias, group.number, grads.bias);
  into_h(grads.x, group, /*is_gate=*/false, sums);
}

MambaMixerArgs MixerPasses::backward(const at::Tensor& dy, const at::Tensor& steps,
                                     MixerMade made) {
  const bool whole = groups_.size() == 1;
  scan_.keep_states = true;
  const bool lean = options_.lean && !whole;
  Sums sums;
  Parts xs(groups_.size()), us(groups_.size()), dus(groups_.size());  // held for the second walk
  const Parts cuts = std::move(made.cuts);
  for (const Group& group : groups_) {
    ScanForward before;
    if (2 * group.number + 1 < cuts.size()) {
      before.pieces = cuts[2 * group.number];
      before.steps = cuts[2 * group.number + 1];
    }
    make(made, steps, group, before);
    at::Tensor grad = dy;
    gate_back(made, grad, group, sums);
    scan_back(made, grad, steps, group, sums);
    if (lean) {
      convolution_back(made.x, grad, group, sums);
    } else {
      xs[group.number] = made.x;
      dus[group.number] = grad;
      if (whole) us[group.number] = made.u;
    }
    made = MixerMade();
  }
  const at::Tensor dsteps = at::cat({sums.r, sums.B, sums.C}, 2);
  sums.r = sums.B = sums.C = at::Tensor();
  for (const Group& group : groups_) {
    at::Tensor x = lean ? entered(group, /*is_gate=*/false) : std::move(xs[group.number]);
    at::Tensor u = whole ? std::move(us[group.number]) : convolved(x, group);
    steps_back(u, dus[group.number], dsteps, group, sums);
    u = at::Tensor();
    convolution_back(x, dus[group.number], group, sums);
  }

  MambaMixerArgs grads;
  grads.h = sums.h.view(args_.h.sizes());
  sums.in_x.insert(sums.in_x.end(), sums.in_z.begin(), sums.in_z.end());
  grads.in_proj = joined(sums.in_x, 0);
  if (args_.in_bias.defined()) {
    sums.in_x_bias.insert(sums.in_x_bias.end(), sums.in_z_bias.begin(), sums.in_z_bias.end());
    grads.in_bias = joined(sums.in_x_bias, 0);
  }
  grads.conv = joined(sums.conv, 1);
  if (args_.conv_bias.defined()) grads.conv_bias = joined(sums.conv_bias, 1);
  grads.x_proj = joined(sums.x_proj, 2);
  grads.dt_proj = joined(sums.dt_proj, 1);
  grads.dt_bias = joined(sums.dt_bias, 1);
  grads.A_log = joined(sums.A_log, 1);
  grads.D = joined(sums.D, 1);
  grads.out_proj = joined(sums.out_proj, 1);
  if (args_.out_bias.defined()) grads.out_bias = matrix(dy).sum(0);
  return grads;
}

}  // namespace serpentine
