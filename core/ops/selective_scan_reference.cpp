// The definition of the selective scan: one loop over positions, plain tensor operations.
#include <torch/torch.h>

#include "core/ops/merge.h"
#include "core/ops/selective_scan.h"
#include "core/ops/selective_scan_check.h"

namespace serpentine {
namespace {

/// Rows of [B, T, K, X] in scan order, each from the branch of its position: [B, P, X].
at::Tensor reference_rows(const at::Tensor& x, const ScanOrder& order) {
  const int64_t batch = x.size(0), positions = order.num_positions();
  const at::Tensor all =
      gather_rows(x.flatten(2), order).view({batch, positions, order.num_branches, x.size(3)});
  const at::Tensor position = at::arange(positions, order.offsets.options());
  const at::Tensor sequence =
      at::searchsorted(order.offsets.slice(0, 1), position, /*out_int32=*/false, /*right=*/true);
  const at::Tensor branch = order.branch.to(at::kLong).index_select(0, sequence);
  const at::Tensor index =
      branch.view({1, positions, 1, 1}).expand({batch, positions, 1, x.size(3)});
  return all.gather(2, index).squeeze(2);
}

}  // namespace

SelectiveScanResult selective_scan_reference(const SelectiveScanArgs& args, const ScanOrder& order,
                                             Rows rows, Merge merge, bool want_final_state) {
  check_selective_scan(args, order, rows);
  const bool by_token = rows == Rows::kToken;
  const at::ScalarType wide = args.A.scalar_type();
  const at::Tensor u = (by_token ? gather_rows(args.u, order) : args.u).to(wide);
  const at::Tensor delta = (by_token ? reference_rows(args.delta, order) : args.delta).to(wide);
  const at::Tensor B = (by_token ? reference_rows(args.B, order) : args.B).to(wide);
  const at::Tensor C = (by_token ? reference_rows(args.C, order) : args.C).to(wide);

  // taken apart once: the gradient of a selection is as large as what it selects from
  const auto us = u.unbind(1), deltas = delta.unbind(1), Bs = B.unbind(1), Cs = C.unbind(1);
  const at::Tensor offsets = order.offsets.cpu(), branches = order.branch.cpu();
  const at::Tensor zero = at::zeros({u.size(0), u.size(2), args.A.size(2)}, args.A.options());
  std::vector<at::Tensor> outputs, final_states;
  for (int64_t s = 0; s < order.num_sequences(); ++s) {
    const int64_t k = branches.data_ptr<int32_t>()[s];
    at::Tensor h = args.initial_state.defined() ? args.initial_state.select(1, s) : zero;
    const size_t end = offsets.data_ptr<int32_t>()[s + 1];
    for (size_t p = offsets.data_ptr<int32_t>()[s]; p < end; ++p) {
      at::Tensor dt = deltas[p];  // [B, D]
      if (args.delta_bias.defined()) dt = dt + args.delta_bias[k];
      if (args.delta_softplus) dt = at::softplus(dt, /*beta=*/1, /*threshold=*/20);
      const at::Tensor decay = at::exp(dt.unsqueeze(-1) * args.A[k]);  // [B, D, N]
      h = decay * h + (dt * us[p]).unsqueeze(-1) * Bs[p].unsqueeze(1);
      at::Tensor y = (h * Cs[p].unsqueeze(1)).sum(-1);  // [B, D]
      if (args.D.defined()) y = y + args.D[k] * us[p];
      outputs.push_back(y);
    }
    final_states.push_back(h);
  }
  const at::Tensor y = outputs.empty() ? u * 0 : at::stack(outputs, 1);  // [B, P, D]
  SelectiveScanResult result;
  result.y = merge_rows(y, order, merge).to(args.u.scalar_type());
  if (want_final_state) {
    result.final_state =
        final_states.empty() ? zero.unsqueeze(1).narrow(1, 0, 0) : at::stack(final_states, 1);
  }
  return result;
}

}  // namespace serpentine
