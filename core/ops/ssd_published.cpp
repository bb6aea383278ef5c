#include "core/ops/ssd_published.h"

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr const char* kSsdPublishedWho = "mamba_chunk_scan_combined";

/// Where each sequence of the rows, laid end to end, begins: [S + 1] on the CPU.
at::Tensor starts_of(const ChunkScanArgs& args) {
  const int64_t batch = args.x.size(0), length = args.x.size(1);
  std::vector<int64_t> starts;
  if (args.cu_seqlens.defined()) {
    SERPENTINE_CHECK(batch == 1, kSsdPublishedWho, "cu_seqlens need one row, got ", batch);
    return args.cu_seqlens.to(at::kCPU, at::kInt).contiguous();
  }
  const at::Tensor ids = args.seq_idx.to(at::kCPU, at::kLong).contiguous();
  check_shape(kSsdPublishedWho, ids, "seq_idx", {batch, length}, "B, L");
  const int64_t* id = ids.data_ptr<int64_t>();
  for (int64_t i = 0; i < batch * length; ++i) {
    if (i % length == 0 || id[i] != id[i - 1]) starts.push_back(i);
  }
  starts.push_back(batch * length);
  return at::tensor(starts, at::kInt);
}

/// The initial states of the sequences: each row's belongs to its first one.
at::Tensor spread(const at::Tensor& states, const at::Tensor& starts, int64_t length) {
  if (!states.defined()) return {};
  const at::Tensor begins = starts.slice(0, 0, -1).to(at::kLong);
  const at::Tensor first = (begins % length == 0).to(states.device());
  const at::Tensor row = begins.div(length, "floor").to(states.device());
  const at::Tensor mask = first.to(states.scalar_type()).view({-1, 1, 1, 1});
  return (states.index_select(0, row) * mask).unsqueeze(0);
}

/// For each row the number of its last sequence.
at::Tensor last_of_rows(const at::Tensor& starts, int64_t batch, int64_t length) {
  const at::Tensor ends = (at::arange(1, batch + 1, at::kInt) * length).to(at::kInt);
  return at::searchsorted(starts, ends) - 1;
}

at::Tensor unsqueezed(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.unsqueeze(0) : tensor;
}

}  // namespace

ChunkScanResult mamba_chunk_scan_combined(const ChunkScanArgs& args) {
  check_shape(kSsdPublishedWho, args.x, "x", {-1, -1, -1, -1}, "B, L, H, E");
  const int64_t batch = args.x.size(0), length = args.x.size(1);
  const bool packed = (args.seq_idx.defined() || args.cu_seqlens.defined()) && args.x.numel() > 0;
  const at::Tensor starts = packed ? starts_of(args) : at::Tensor();
  const auto rows = [&](const at::Tensor& x) { return packed ? x.flatten(0, 1).unsqueeze(0) : x; };
  SsdArgs inner;
  inner.x = rows(args.x);
  inner.dt = rows(args.dt);
  inner.A = unsqueezed(args.A);
  inner.B = rows(args.B);
  inner.C = rows(args.C);
  inner.D = unsqueezed(args.D);
  inner.dt_bias = unsqueezed(args.dt_bias);
  inner.initial_state = packed ? spread(args.initial_states, starts, length)
                        : args.initial_states.defined() ? args.initial_states.unsqueeze(1)
                                                        : at::Tensor();
  inner.dt_softplus = args.dt_softplus;
  inner.dt_min = args.dt_min;
  inner.dt_max = args.dt_max;
  inner.chunk = args.chunk_size;
  const ScanOrder order =
      packed ? ragged_order(starts.to(args.x.device())) : identity_order(length, args.x.device());
  const SsdResult made = ssd(inner, order, Rows::kPosition, Merge::kSum, /*want_final_state=*/true);

  ChunkScanResult result;
  result.out = made.y.view(args.x.sizes());
  if (args.z.defined()) {
    const auto wide = args.A.scalar_type();
    result.out = (result.out.to(wide) * at::silu(args.z.to(wide))).to(args.x.scalar_type());
  }
  if (args.cu_seqlens.defined()) result.varlen_states = made.final_state.squeeze(0);
  result.final_states = packed ? made.final_state.squeeze(0).index_select(
                                     0, last_of_rows(starts, batch, length).to(args.x.device()))
                               : made.final_state.squeeze(1);
  return result;
}

std::pair<at::Tensor, at::Tensor> ssd_minimal_discrete(const at::Tensor& X, const at::Tensor& A,
                                                       const at::Tensor& B, const at::Tensor& C,
                                                       int64_t block_len,
                                                       const at::Tensor& initial_states) {
  check_shape("ssd_minimal_discrete", X, "X", {-1, -1, -1, -1}, "B, L, H, E");
  check_shape("ssd_minimal_discrete", A, "A", {X.size(0), X.size(1), X.size(2)}, "B, L, H");

  SsdArgs inner;
  inner.x = X;
  inner.dt = at::ones_like(A);
  inner.log_decay = A;
  inner.B = B;
  inner.C = C;
  inner.initial_state = initial_states;
  inner.dt_softplus = false;
  inner.chunk = block_len;
  const SsdResult made = ssd(inner, identity_order(X.size(1), X.device()), Rows::kPosition,
                             Merge::kSum, /*want_final_state=*/true);
  return {made.y, made.final_state.squeeze(1)};
}

}  // namespace serpentine
