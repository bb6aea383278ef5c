#include "core/ops/merge.h"

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Carries a value that is not a tensor from an autograd function's forward to its backward.
struct KeptMerge : torch::CustomClassHolder {
  KeptMerge(ScanOrder kept_order, Merge kept_merge)
      : order(std::move(kept_order)), merge(kept_merge) {}
  ScanOrder order;
  Merge merge;
};

void keep(AutogradContext* context, const ScanOrder& order, Merge merge) {
  context->saved_data["kept"] =
      c10::IValue::make_capsule(c10::make_intrusive<KeptMerge>(order, merge));
}

c10::intrusive_ptr<KeptMerge> kept(AutogradContext* context) {
  return c10::static_intrusive_pointer_cast<KeptMerge>(context->saved_data["kept"].toCapsule());
}

/// Row index[i] of x, zeros where it is negative. x: [B, R, D], index: int32 [I] or [B, I].
at::Tensor take_rows(const at::Tensor& x, const at::Tensor& index) {
  if (x.size(1) == 0) return at::zeros({x.size(0), index.size(-1), x.size(2)}, x.options());
  const at::Tensor row = index.clamp_min(0).to(at::kLong);
  const at::Tensor taken =
      index.dim() == 1
          ? x.index_select(1, row)
          : x.gather(1, row.unsqueeze(-1).expand({x.size(0), index.size(1), x.size(2)}));
  return taken.masked_fill((index < 0).unsqueeze(-1), 0);
}

/// The number of real visits of each token, at least 1: [T, 1] or [B, T, 1].
at::Tensor visit_counts(const ScanOrder& order, const at::Tensor& like) {
  return (order.visits >= 0).sum(-1, /*keepdim=*/true).clamp_min(1).to(like.scalar_type());
}

at::Tensor merge_by_visits(const at::Tensor& x, const ScanOrder& order, Merge merge) {
  std::vector<at::Tensor> rows;
  at::Tensor sum;
  for (int64_t visit = 0; visit < order.num_visits(); ++visit) {
    const at::Tensor row = take_rows(x, order.visits.select(-1, visit));
    if (merge == Merge::kConcat) {
      rows.push_back(row);
    } else {
      sum = visit == 0 ? row : sum + row;
    }
  }
  if (merge == Merge::kConcat) return at::cat(rows, -1);
  return merge == Merge::kMean ? sum / visit_counts(order, x) : sum;
}

/// The place of each position among all tokens' visits, t V + v, or kPad: int32 [P] or [B, P].
at::Tensor visit_of_position(const ScanOrder& order) {
  const at::Tensor visits = order.visits.flatten(-2);
  const int64_t positions = order.num_positions();
  const at::Tensor target =
      at::where(visits >= 0, visits, at::full({}, positions, visits.options())).to(at::kLong);
  std::vector<int64_t> shape(visits.sizes().begin(), visits.sizes().end());
  const at::Tensor place = at::arange(shape.back(), visits.options()).expand_as(visits);
  shape.back() = positions + 1;
  return at::full(shape, kPad, visits.options())
      .scatter(-1, target, place)
      .narrow(-1, 0, positions);
}

struct GatherRows : torch::autograd::Function<GatherRows> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const ScanOrder& order) {
    keep(context, order, Merge::kSum);
    return take_rows(x, order.tokens);
  }
  static variable_list backward(AutogradContext* context, variable_list grad) {
    return {merge_rows(grad[0], kept(context)->order, Merge::kSum), {}};
  }
};

struct MergeRows : torch::autograd::Function<MergeRows> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const ScanOrder& order,
                            Merge merge) {
    keep(context, order, merge);
    return merge_by_visits(x, order, merge);
  }
  static variable_list backward(AutogradContext* context, variable_list grad) {
    const auto& [order, merge] = std::tie(kept(context)->order, kept(context)->merge);
    if (merge == Merge::kSum) return {gather_rows(grad[0], order), {}, {}};
    if (merge == Merge::kMean) {
      return {gather_rows(grad[0] / visit_counts(order, grad[0]), order), {}, {}};
    }
    const int64_t batch = grad[0].size(0), visits = order.num_visits();
    const at::Tensor by_visit =
        grad[0].reshape({batch, order.num_tokens * visits, grad[0].size(2) / visits});
    return {take_rows(by_visit, visit_of_position(order)), {}, {}};
  }
};

bool is_identity(const ScanOrder& order) {
  return order.identity && order.num_positions() == order.num_tokens;
}

}  // namespace

at::Tensor gather_rows(const at::Tensor& x, const ScanOrder& order) {
  const int64_t batch = order.tokens.dim() == 2 ? order.tokens.size(0) : -1;
  check_shape("gather_rows", x, "x", {batch, order.num_tokens, -1}, "B, T, D");
  check_same_device("gather_rows", order.tokens, "the order", x);
  return is_identity(order) ? x : GatherRows::apply(x, order);
}

at::Tensor merge_rows(const at::Tensor& x, const ScanOrder& order, Merge merge) {
  const int64_t batch = order.tokens.dim() == 2 ? order.tokens.size(0) : -1;
  check_shape("merge_rows", x, "x", {batch, order.num_positions(), -1}, "B, P, D");
  check_same_device("merge_rows", order.tokens, "the order", x);
  return is_identity(order) ? x : MergeRows::apply(x, order, merge);
}

}  // namespace serpentine
