// The definition of ssd: one loop over positions, plain tensor operations.
#include <torch/torch.h>

#include "core/ops/merge.h"
#include "core/ops/ssd.h"
#include "core/ops/ssd_rows.h"

namespace serpentine {

SsdResult ssd_reference(const SsdArgs& args, const ScanOrder& order, Rows rows, Merge merge,
                        bool want_final_state) {
  check_ssd(args, order, rows);
  const SsdRows in = ssd_rows(args, order, rows);
  const at::ScalarType wide = ssd_wide(args);
  const int64_t batch = in.x.size(0), heads = in.x.size(2), channels = in.x.size(3);
  const int64_t states = in.B.size(3), share = heads / in.B.size(2);

  // taken apart once: the gradient of a selection is as large as what it selects from
  const auto xs = in.x.to(wide).unbind(1), dts = in.dt.unbind(1), as = in.a.unbind(1);
  const auto Bs = in.B.to(wide).repeat_interleave(share, 2).unbind(1);  // [B, H, N]
  const auto Cs = in.C.to(wide).repeat_interleave(share, 2).unbind(1);
  const at::Tensor offsets = order.offsets.cpu(), branches = order.branch.cpu();
  const at::Tensor zero =
      at::zeros({batch, heads, channels, states}, in.dt.options().requires_grad(false));
  std::vector<at::Tensor> outputs, final_states;
  for (int64_t s = 0; s < order.num_sequences(); ++s) {
    const int64_t k = branches.data_ptr<int32_t>()[s];
    at::Tensor state = args.initial_state.defined() ? args.initial_state.select(1, s) : zero;
    const auto end = static_cast<size_t>(offsets.data_ptr<int32_t>()[s + 1]);
    for (auto p = static_cast<size_t>(offsets.data_ptr<int32_t>()[s]); p < end; ++p) {
      const at::Tensor decay = as[p].exp().unsqueeze(-1).unsqueeze(-1);
      const at::Tensor fed = xs[p] * dts[p].unsqueeze(-1);  // [B, H, E]
      state = decay * state + fed.unsqueeze(-1) * Bs[p].unsqueeze(-2);
      at::Tensor y = (state * Cs[p].unsqueeze(-2)).sum(-1);
      if (args.D.defined()) y = y + xs[p] * args.D[k].view({heads, -1});
      outputs.push_back(y);
    }
    final_states.push_back(state);
  }
  const at::Tensor y = outputs.empty() ? in.x.to(wide) * 0 : at::stack(outputs, 1);
  SsdResult result;
  result.y =
      as_heads(merge_rows(y.flatten(2), order, merge), args.x.size(3)).to(args.x.scalar_type());
  if (want_final_state) {
    result.final_state =
        final_states.empty() ? zero.unsqueeze(1).narrow(1, 0, 0) : at::stack(final_states, 1);
  }
  return result;
}

}  // namespace serpentine
