#include "core/ops/ssd_math.h"

#include <limits>

#include <ATen/ATen.h>

#include "core/ops/ssd_fused.h"

namespace serpentine {
namespace {

struct Sizes {
  int64_t chunks, length, heads, channels, groups, states;
  int64_t share() const { return heads / groups; }     // heads a group
  int64_t wide() const { return share() * channels; }  // columns of a group
};

Sizes sizes_of(const SsdChunks& in) {
  return {in.x.size(0), in.x.size(1), in.x.size(2), in.x.size(3), in.B.size(2), in.B.size(3)};
}

/// Of the operands of products: on a GPU 16-bit ones stay so for its tensor cores.
at::ScalarType product_type(const SsdChunks& in) {
  return in.x.is_cuda() ? in.x.scalar_type() : in.w.scalar_type();
}

/// Batched matrix product with wide sums.
at::Tensor product(const at::Tensor& left, const at::Tensor& right, const SsdChunks& in) {
  const at::ScalarType type = product_type(in), wide = in.w.scalar_type();
  if (type == wide) return at::bmm(left.to(wide), right.to(wide));
  return at::bmm(left.to(type), right.to(type), wide);
}

/// [R, Q, G, ...] -> [R G, Q, X], a view for one group.
at::Tensor by_group(const at::Tensor& x, int64_t groups) {
  const int64_t chunks = x.size(0), length = x.size(1);
  if (groups == 1) return x.reshape({chunks, length, -1});
  return x.reshape({chunks, length, groups, -1})
      .transpose(1, 2)
      .reshape({chunks * groups, length, -1});
}

/// [R G, Q, X] -> [R, Q, shape...]
at::Tensor from_groups(const at::Tensor& x, int64_t groups, at::IntArrayRef shape) {
  if (groups == 1) return x.view(shape);
  return x.view({x.size(0) / groups, groups, x.size(1), x.size(2)}).transpose(1, 2).reshape(shape);
}

/// [R, Q, H, E] -> contiguous [R H, Q, E] of `type`, each row times `scale` [R, Q, H] if there is
/// one.
at::Tensor by_head(const at::Tensor& x, const at::Tensor& scale, at::ScalarType type) {
  const at::Tensor turned = x.transpose(1, 2);
  at::Tensor made = at::empty(turned.sizes(), x.options().dtype(type));
  if (scale.defined()) {
    at::mul_out(made, turned, scale.transpose(1, 2).unsqueeze(-1));
  } else {
    made.copy_(turned);
  }
  return made.view({turned.size(0) * turned.size(1), turned.size(2), turned.size(3)});
}

at::Tensor from_heads(const at::Tensor& x, const Sizes& size) {
  return x.view({size.chunks, size.heads, size.length, size.channels}).transpose(1, 2);
}

/// L of each head: [R, H, Q, Q]. sum: [R, Q, H], inclusive.
at::Tensor decays(const at::Tensor& sum) {
  const at::Tensor turned = sum.transpose(1, 2).contiguous();
  const int64_t length = sum.size(1);
  const at::Tensor later =
      at::ones({length, length}, sum.options().dtype(at::kBool)).triu(/*diagonal=*/1);
  at::Tensor made = turned.unsqueeze(-1) - turned.unsqueeze(-2);
  return made.masked_fill_(later, -std::numeric_limits<double>::infinity()).exp_();
}

/// Multiplies [R, H, Q, Q] in place by its group's [R G, Q, Q].
void times_group(at::Tensor& heads, const at::Tensor& groups, const Sizes& size) {
  heads.view({size.chunks, size.groups, size.share(), size.length, size.length})
      .mul_(groups.view({size.chunks, size.groups, 1, size.length, size.length}));
}

at::Tensor scaled(const at::Tensor& x, const at::Tensor& scale) { return x * scale.unsqueeze(-1); }

/// The same as an operand of a product.
at::Tensor scaled(const at::Tensor& x, const at::Tensor& scale, const SsdChunks& in) {
  at::Tensor made = at::empty(x.sizes(), x.options().dtype(product_type(in)));
  return at::mul_out(made, x, scale.unsqueeze(-1));
}

/// [R G, N, X] -> [R, G, N, H/G, E]
at::Tensor as_states(const at::Tensor& x, const Sizes& size) {
  return x.view({size.chunks, size.groups, size.states, size.share(), size.channels});
}

at::Tensor as_matrices(const at::Tensor& states, const Sizes& size) {
  return states.reshape({size.chunks * size.groups, size.states, size.wide()});
}

/// exp(c[Q-1] - c): what is left of each slot at the end of its chunk.
at::Tensor decay_to_end(const at::Tensor& sum) {
  return (sum.narrow(1, sum.size(1) - 1, 1) - sum).exp_();
}

}  // namespace

SsdChunks SsdChunks::narrow(int64_t first, int64_t count) const {
  const auto cut = [&](const at::Tensor& t) { return t.defined() ? t.narrow(0, first, count) : t; };
  return {cut(x), cut(w), cut(a), cut(B), cut(C), cut(D)};
}

at::Tensor ssd_state_sums(const SsdChunks& in) {
  const Sizes size = sizes_of(in);
  const at::Tensor fed = scaled(in.x, in.w * decay_to_end(in.a.cumsum(1)), in);
  return as_states(
      product(by_group(in.B, size.groups).transpose(1, 2), by_group(fed, size.groups), in), size);
}

void ssd_outputs(const SsdChunks& in, const at::Tensor& entering, const at::Tensor& y) {
  const Sizes size = sizes_of(in);
  const at::Tensor sum = in.a.cumsum(1), C = by_group(in.C, size.groups);
  const at::Tensor seen = product(C, as_matrices(entering, size), in);
  const at::Tensor pairs = product(C, by_group(in.B, size.groups).transpose(1, 2), in);
  const at::Tensor fed = by_head(in.x, in.w, product_type(in));
  if (cuda::takes_ssd(in)) {
    const at::Tensor mixing = cuda::ssd_mixed(in, sum, pairs, product_type(in));
    cuda::ssd_combined(in, y, product(mixing, fed, in), {}, seen, sum.exp(), in.x);
    return;
  }
  at::Tensor wide = from_groups(seen, size.groups, in.x.sizes());
  wide.mul_(sum.exp().unsqueeze(-1));
  if (in.D.defined()) wide.addcmul_(in.x.to(wide.scalar_type()), in.D.unsqueeze(1));
  at::Tensor mixing = decays(sum);
  times_group(mixing, pairs, size);
  const at::Tensor inside = product(mixing.view({-1, size.length, size.length}), fed, in);
  y.copy_(wide.add_(from_heads(inside, size)));
}

at::Tensor ssd_state_gradient_sums(const SsdChunks& in, const at::Tensor& grad) {
  const Sizes size = sizes_of(in);
  const at::Tensor reached = scaled(grad, in.a.cumsum(1).exp_(), in);
  return as_states(
      product(by_group(in.C, size.groups).transpose(1, 2), by_group(reached, size.groups), in),
      size);
}

namespace {

/// What the products inside of the chunks say. With Z[i, j] = grad[i] . x[j], the gradient of
/// (C . B) is Z L w.
struct InsideBack {
  at::Tensor x;            // [R H, Q, E], before the weights w
  at::Tensor pairs;        // [R G, Q, Q], the gradient of (C . B)
  at::Tensor row, column;  // [R, H, Q]: sums of Z L (C . B) over j, weighted with w, and over i
};

InsideBack inside_back(const SsdChunks& in, const Sizes& size, const at::Tensor& sum,
                       const at::Tensor& pairs, const at::Tensor& grad) {
  InsideBack made;
  const at::ScalarType type = product_type(in);
  const at::Tensor grad_heads = by_head(grad, {}, type);
  const auto into_x = [&](const at::Tensor& mixing) {
    made.x = product(mixing.view({-1, size.length, size.length}).transpose(1, 2), grad_heads, in);
  };
  const auto over_heads = [&](const at::Tensor& all) {
    made.pairs = all.view({size.chunks, size.groups, size.share(), size.length, size.length})
                     .sum(2)
                     .view_as(pairs);
  };
  const at::Tensor both = product(grad_heads, by_head(in.x, {}, type).transpose(1, 2), in);
  if (cuda::takes_ssd(in)) {
    const auto back = cuda::ssd_mixed_back(in, sum, pairs, both, type);
    into_x(back.mixing);
    over_heads(both);
    made.row = back.row;
    made.column = back.column;
    return made;
  }
  at::Tensor inner = decays(sum);
  at::Tensor mixing = inner.clone();
  times_group(mixing, pairs, size);
  into_x(mixing);
  mixing.reset();
  const at::Tensor w_heads = in.w.transpose(1, 2).contiguous();  // [R, H, Q]
  inner.mul_(both.view_as(inner));
  over_heads(inner * w_heads.unsqueeze(-2));
  times_group(inner, pairs, size);
  made.column = inner.sum(-2);
  made.row = at::matmul(inner, w_heads.unsqueeze(-1)).squeeze(-1);
  return made;
}

}  // namespace

SsdChunks ssd_gradients(const SsdChunks& in, const at::Tensor& entering, const at::Tensor& grad,
                        const at::Tensor& leaving) {
  const Sizes size = sizes_of(in);
  const at::ScalarType wide = in.w.scalar_type();
  const at::Tensor sum = in.a.cumsum(1), total = sum.select(1, size.length - 1);
  const at::Tensor B = by_group(in.B, size.groups), C = by_group(in.C, size.groups);
  const at::Tensor x = in.x.to(wide);
  SsdChunks made;

  const at::Tensor pairs = product(C, B.transpose(1, 2), in);  // [R G, Q, Q]
  const InsideBack inside = inside_back(in, size, sum, pairs, grad);
  made.w = inside.column.transpose(1, 2);
  at::Tensor grad_sum = (inside.row - inside.column * in.w.transpose(1, 2))
                            .transpose(1, 2)
                            .contiguous();  // [R, Q, H]

  // through the entering states
  const at::Tensor reached = scaled(grad, sum.exp());
  const at::Tensor state = as_matrices(entering, size), grad_state = as_matrices(leaving, size);
  const at::Tensor seen = from_groups(product(C, state, in), size.groups, in.x.sizes());
  grad_sum.add_((reached * seen).sum(-1));
  const at::Tensor grad_C =
      product(inside.pairs, B, in)
          .add_(product(by_group(reached, size.groups), state.transpose(1, 2), in));

  // through the leaving states
  const at::Tensor rest = decay_to_end(sum), kept = in.w * rest;
  const at::Tensor asked_groups = product(B, grad_state, in);
  const at::Tensor asked = from_groups(asked_groups, size.groups, in.x.sizes());
  if (cuda::takes_ssd(in)) {
    made.x = at::empty(in.x.sizes(), in.x.options());
    cuda::ssd_combined(in, made.x, inside.x, in.w, asked_groups, kept, grad);
  } else {
    made.x = scaled(from_heads(inside.x, size), in.w).add_(scaled(asked, kept));
    if (in.D.defined()) made.x.addcmul_(grad, in.D.unsqueeze(1));
  }
  const at::Tensor taken = (x * asked).sum(-1) * rest;  // [R, Q, H]
  made.w = made.w + taken;
  const at::Tensor lost = taken * in.w;
  grad_sum.sub_(lost);
  const at::Tensor grad_total =
      lost.sum(1) + total.exp() * (entering * leaving).sum(at::IntArrayRef({2, 4})).flatten(1);
  grad_sum.select(1, size.length - 1).add_(grad_total);
  const at::Tensor grad_B = product(inside.pairs.transpose(1, 2), C, in)
                                .add_(product(by_group(scaled(x, kept, in), size.groups),
                                              grad_state.transpose(1, 2), in));

  made.a = grad_sum.flip(1).cumsum(1).flip(1);
  made.B = from_groups(grad_B, size.groups, in.B.sizes());
  made.C = from_groups(grad_C, size.groups, in.C.sizes());
  if (in.D.defined()) made.D = (grad * x).sum(1);
  return made;
}

}  // namespace serpentine
