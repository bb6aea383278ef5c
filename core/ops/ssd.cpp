#include "core/ops/ssd.h"

#include <algorithm>

#include <ATen/autocast_mode.h>
#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/merge.h"
#include "core/ops/ssd_chunks.h"
#include "core/ops/ssd_math.h"
#include "core/ops/ssd_rows.h"

namespace serpentine {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Optional = std::optional<at::Tensor>;

/// Operands at positions: what the chunks are made of.
struct Operands {
  at::Tensor x, w, a, B, C;  // [B, P, ...] as in SsdChunks
  at::Tensor D;              // [M, H, E], one row a chunk, or undefined
  at::Tensor first;          // [B, S, H, E, N] or undefined
};

/// Carries what is not a tensor from the forward pass to the backward one.
struct KeptSsd : torch::CustomClassHolder {
  ChunkPlan plan;
  at::ScalarType out = at::kFloat;
};

struct Passed {
  at::Tensor y, final_state;
  at::Tensor entering;  // [B M, G, N, H/G, E]
};

/// Chunks whose temporary matrices stay in a cache, or fill a GPU.
int64_t slab_size(const SsdChunks& in) {
  const int64_t length = in.x.size(1), heads = in.x.size(2);
  const int64_t bytes = 4 * heads * length * (3 * length + 4 * in.x.size(3));
  const int64_t room = in.x.is_cuda() ? int64_t{1} << 29 : int64_t{1} << 23;
  return std::max<int64_t>(1, room / std::max<int64_t>(bytes, 1));
}

template <class Work>
void for_each_slab(const SsdChunks& in, const Work& work) {
  const int64_t chunks = in.x.size(0), most = slab_size(in);
  for (int64_t first = 0; first < chunks; first += most) {
    const int64_t count = std::min(most, chunks - first);
    work(in.narrow(first, count), first, count);
  }
}

SsdChunks chunked(const Operands& in, const ChunkPlan& plan) {
  SsdChunks made{to_chunks(in.x, plan), to_chunks(in.w, plan), to_chunks(in.a, plan),
                 to_chunks(in.B, plan), to_chunks(in.C, plan), {}};
  if (in.D.defined()) {
    made.D = in.D.unsqueeze(0).expand({in.x.size(0), -1, -1, -1}).flatten(0, 1).contiguous();
  }
  return made;
}

/// [B, S, H, E, N] -> by rank [B, S, G, N, H/G, E], and back.
at::Tensor inward(const at::Tensor& state, int64_t groups, const ChunkPlan& plan) {
  const at::Tensor ranked = plan.ranked.defined() ? state.index_select(1, plan.ranked) : state;
  return ranked.unflatten(2, {groups, -1}).permute({0, 1, 2, 5, 3, 4}).contiguous();
}
at::Tensor outward(const at::Tensor& state, const ChunkPlan& plan) {
  const at::Tensor turned = state.permute({0, 1, 2, 4, 5, 3}).flatten(2, 3);
  return (plan.rank.defined() ? turned.index_select(1, plan.rank) : turned).contiguous();
}

at::Tensor chunk_decay(const SsdChunks& in, const ChunkPlan& plan) {
  const int64_t groups = in.B.size(2), heads = in.x.size(2);
  return in.a.sum(1).exp().view({-1, plan.chunks, groups, 1, heads / groups, 1});
}

Passed forward_pass(const Operands& operands, const KeptSsd& kept) {
  const ChunkPlan& plan = kept.plan;
  const SsdChunks in = chunked(operands, plan);
  const int64_t batch = operands.x.size(0), groups = in.B.size(2), heads = in.x.size(2);
  Passed made;
  made.entering =
      at::empty({in.x.size(0), groups, in.B.size(3), heads / groups, in.x.size(3)}, in.w.options());
  for_each_slab(in, [&](const SsdChunks& slab, int64_t first, int64_t count) {
    made.entering.narrow(0, first, count).copy_(ssd_state_sums(slab));
  });
  at::Tensor sums = made.entering.unflatten(0, {batch, plan.chunks});
  const at::Tensor state =
      operands.first.defined() ? inward(operands.first, groups, plan) : at::Tensor();
  made.final_state = outward(
      pass_states(sums, chunk_decay(in, plan), state, plan, Direction::kForward, in.x.is_cuda()),
      plan);
  at::Tensor y = at::empty(in.x.sizes(), in.x.options().dtype(kept.out));
  for_each_slab(in, [&](const SsdChunks& slab, int64_t first, int64_t count) {
    ssd_outputs(slab, made.entering.narrow(0, first, count), y.narrow(0, first, count));
  });
  made.y = from_chunks(y, plan, batch);
  return made;
}

/// Gradients of the operands. grad: [B, P, H, E]; grad_state: [B, S, H, E, N] or undefined.
Operands backward_pass(const Operands& operands, const KeptSsd& kept, const at::Tensor& entering,
                       const at::Tensor& grad, const at::Tensor& grad_state) {
  const ChunkPlan& plan = kept.plan;
  const SsdChunks in = chunked(operands, plan);
  const int64_t batch = operands.x.size(0), groups = in.B.size(2);
  const at::ScalarType wide = in.w.scalar_type();
  const at::Tensor grads = to_chunks(grad, plan);
  at::Tensor leaving = at::empty_like(entering);
  for_each_slab(in, [&](const SsdChunks& slab, int64_t first, int64_t count) {
    const at::Tensor part = grads.narrow(0, first, count).to(wide);
    leaving.narrow(0, first, count).copy_(ssd_state_gradient_sums(slab, part));
  });
  at::Tensor sums = leaving.unflatten(0, {batch, plan.chunks});
  const at::Tensor last = grad_state.defined() ? inward(grad_state, groups, plan) : at::Tensor();
  Operands made;
  made.first = outward(
      pass_states(sums, chunk_decay(in, plan), last, plan, Direction::kBackward, in.x.is_cuda()),
      plan);

  SsdChunks all{at::empty_like(in.x, at::MemoryFormat::Contiguous),
                at::empty_like(in.w, at::MemoryFormat::Contiguous),
                at::empty_like(in.a, at::MemoryFormat::Contiguous),
                at::empty_like(in.B, at::MemoryFormat::Contiguous),
                at::empty_like(in.C, at::MemoryFormat::Contiguous),
                in.D.defined() ? at::empty(in.D.sizes(), in.w.options()) : at::Tensor()};
  for_each_slab(in, [&](const SsdChunks& slab, int64_t first, int64_t count) {
    const SsdChunks part =
        ssd_gradients(slab, entering.narrow(0, first, count),
                      grads.narrow(0, first, count).to(wide), leaving.narrow(0, first, count));
    const SsdChunks into = all.narrow(first, count);
    into.x.copy_(part.x);
    into.w.copy_(part.w);
    into.a.copy_(part.a);
    into.B.copy_(part.B);
    into.C.copy_(part.C);
    if (into.D.defined()) into.D.copy_(part.D);
  });
  const auto back = [&](const at::Tensor& x) { return from_chunks(x, plan, batch); };
  made.x = back(all.x);
  made.w = back(all.w);
  made.a = back(all.a);
  made.B = back(all.B);
  made.C = back(all.C);
  if (all.D.defined()) made.D = all.D.unflatten(0, {batch, plan.chunks}).sum(0);
  return made;
}

Optional optional_tensor(const at::Tensor& tensor) {
  return tensor.defined() ? Optional(tensor) : std::nullopt;
}

struct Ssd : torch::autograd::Function<Ssd> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& w,
                               const at::Tensor& a, const at::Tensor& B, const at::Tensor& C,
                               const Optional& D, const Optional& first,
                               const c10::intrusive_ptr<KeptSsd>& kept) {
    const Operands in{x, w, a, B, C, D.value_or(at::Tensor()), first.value_or(at::Tensor())};
    const Passed made = forward_pass(in, *kept);
    context->save_for_backward({x, w, a, B, C, in.D, in.first, made.entering});
    context->saved_data["kept"] = c10::IValue::make_capsule(kept);
    context->set_materialize_grads(false);
    return {made.y, made.final_state};
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    SERPENTINE_CHECK(!at::GradMode::is_enabled(), "ssd",
                     "it has no second derivative (create_graph); use ssd_reference");
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const auto kept =
        c10::static_intrusive_pointer_cast<KeptSsd>(context->saved_data["kept"].toCapsule());
    const variable_list saved = context->get_saved_variables();
    const Operands in{saved[0], saved[1], saved[2], saved[3], saved[4], saved[5], saved[6]};
    if (!grads[0].defined()) grads[0] = at::zeros_like(in.x);
    const Operands made = backward_pass(in, *kept, saved[7], grads[0], grads[1]);
    return {made.x,
            made.w,
            made.a,
            made.B,
            made.C,
            made.D,
            in.first.defined() ? made.first : at::Tensor(),
            at::Tensor()};
  }
};

bool needs_gradients(const Operands& in) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor& tensor : {in.x, in.w, in.a, in.B, in.C, in.D, in.first}) {
    if (tensor.defined() && tensor.requires_grad()) return true;
  }
  return false;
}

/// The branches' D [K, H] or [K, H, E] of each chunk: [M, H, E]. A product with ones and zeros: its
/// gradient sums in a fixed order.
at::Tensor chunk_skip(const SsdArgs& args, const ScanOrder& order, const ChunkPlan& plan) {
  if (!args.D.defined()) return {};
  const int64_t heads = args.x.size(2), channels = args.x.size(3), branches = order.num_branches;
  const at::Tensor D = args.D.view({branches, heads, -1}).expand({branches, heads, channels});
  if (branches == 1) return D.expand({plan.chunks, heads, channels});
  const at::Tensor branch = order.branch.to(at::kCPU, at::kLong)
                                .index_select(0, at::tensor(plan.sequence, at::kLong))
                                .to(args.D.device());
  return at::matmul(at::one_hot(branch, branches).to(D.scalar_type()), D.flatten(1))
      .view({plan.chunks, heads, channels});
}

/// Chunks as long as the state is wide balance the two kinds of products and bound the states kept.
int64_t chosen_length(const SsdArgs& args) {
  if (args.chunk > 0) return args.chunk;
  int64_t length = args.x.is_cuda() ? 64 : 32;
  while (length < args.B.size(-1) && length < 256) length *= 2;
  return length;
}

}  // namespace

SsdResult ssd(const SsdArgs& args, const ScanOrder& order, Rows rows, Merge merge,
              bool want_final_state) {
  check_ssd(args, order, rows);
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  if (args.x.numel() == 0 || order.num_positions() == 0) {
    return ssd_reference(args, order, rows, merge, want_final_state);
  }
  const SsdRows placed = ssd_rows(args, order, rows);
  const auto kept = c10::make_intrusive<KeptSsd>();
  kept->plan = make_chunk_plan(order, chosen_length(args), args.x.device());
  const bool summed = order.num_visits() > 1 && merge != Merge::kConcat;
  kept->out = summed ? ssd_wide(args) : args.x.scalar_type();
  Operands in{placed.x, placed.dt, placed.a, placed.B, placed.C, {}, args.initial_state};
  in.D = chunk_skip(args, order, kept->plan);

  SsdResult result;
  if (needs_gradients(in)) {
    const variable_list made = Ssd::apply(in.x, in.w, in.a, in.B, in.C, optional_tensor(in.D),
                                          optional_tensor(in.first), kept);
    result.y = made[0];
    result.final_state = made[1];
  } else {
    const Passed made = forward_pass(in, *kept);
    result.y = made.y;
    result.final_state = made.final_state;
  }
  if (!want_final_state) result.final_state = at::Tensor();
  result.y = as_heads(merge_rows(result.y.flatten(2), order, merge), args.x.size(3))
                 .to(args.x.scalar_type());
  return result;
}

}  // namespace serpentine
