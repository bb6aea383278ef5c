// Registers state space duality, the step of decoding and the norms for Python.
#include <torch/library.h>

#include "core/ops/norm.h"
#include "core/ops/selective_scan_published.h"
#include "core/ops/ssd.h"
#include "core/ops/ssd_published.h"
#include "python/arguments.h"

namespace serpentine {
namespace {

using Triple = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

std::tuple<at::Tensor, at::Tensor> duality(
    const at::Tensor& x, const at::Tensor& dt, const at::Tensor& A, const at::Tensor& B,
    const at::Tensor& C, const OptionalTensor& D, const OptionalTensor& dt_bias,
    const OptionalTensor& initial_state, bool dt_softplus, double dt_min,
    std::optional<double> dt_max, int64_t chunk, const OptionalTensor& tokens,
    const OptionalTensor& offsets, const OptionalTensor& branch, const OptionalTensor& visits,
    bool complete, std::optional<int64_t> num_tokens, std::string_view rows, std::string_view merge,
    bool return_final_state) {
  TORCH_CHECK(x.dim() == 4, "ssd: x must be [B, T, H, E] or [B, P, H, E], got ", x.sizes());
  if (x.is_meta()) {
    const int64_t copies = parse_merge(merge) == Merge::kConcat && visits ? visits->size(-1) : 1;
    const int64_t sequences = branch ? branch->size(0) : offsets ? offsets->size(0) - 1 : 1;
    const int64_t rows_out = num_tokens.value_or(visits ? visits->size(-2) : x.size(1));
    return {x.new_empty({x.size(0), rows_out, copies * x.size(2), x.size(3)}),
            A.new_empty({x.size(0), sequences, x.size(2), x.size(3), B.size(-1)})};
  }
  SsdArgs args;
  args.x = x;
  args.dt = dt;
  args.A = A;
  args.B = B;
  args.C = C;
  args.D = or_undefined(D);
  args.dt_bias = or_undefined(dt_bias);
  args.initial_state = or_undefined(initial_state);
  args.dt_softplus = dt_softplus;
  args.dt_min = dt_min;
  args.dt_max = dt_max.value_or(args.dt_max);
  args.chunk = chunk;
  const ScanOrder order =
      order_of(x, A.size(0), tokens, offsets, branch, visits, complete, num_tokens);
  SsdResult result = ssd(args, order, parse_rows(rows), parse_merge(merge), return_final_state);
  return {result.y, result.final_state};
}

Triple chunk_scan(const at::Tensor& x, const at::Tensor& dt, const at::Tensor& A,
                  const at::Tensor& B, const at::Tensor& C, int64_t chunk_size,
                  const OptionalTensor& D, const OptionalTensor& z, const OptionalTensor& dt_bias,
                  const OptionalTensor& initial_states, const OptionalTensor& seq_idx,
                  const OptionalTensor& cu_seqlens, bool dt_softplus, double dt_min,
                  std::optional<double> dt_max) {
  if (x.is_meta()) {
    const std::vector<int64_t> state{x.size(0), x.size(2), x.size(3), B.size(3)};
    std::vector<int64_t> packed = state;
    packed[0] = cu_seqlens ? cu_seqlens->size(0) - 1 : 0;
    return {at::empty_like(x), A.new_empty(state), A.new_empty(packed)};
  }
  ChunkScanArgs args;
  args.x = x;
  args.dt = dt;
  args.A = A;
  args.B = B;
  args.C = C;
  args.D = or_undefined(D);
  args.z = or_undefined(z);
  args.dt_bias = or_undefined(dt_bias);
  args.initial_states = or_undefined(initial_states);
  args.seq_idx = or_undefined(seq_idx);
  args.cu_seqlens = or_undefined(cu_seqlens);
  args.dt_softplus = dt_softplus;
  args.dt_min = dt_min;
  args.dt_max = dt_max.value_or(args.dt_max);
  args.chunk_size = chunk_size;
  ChunkScanResult result = mamba_chunk_scan_combined(args);
  return {result.out, result.final_states, result.varlen_states};
}

at::Tensor state_update(at::Tensor& state, const at::Tensor& x, const at::Tensor& dt,
                        const at::Tensor& A, const at::Tensor& B, const at::Tensor& C,
                        const OptionalTensor& D, const OptionalTensor& z,
                        const OptionalTensor& dt_bias, bool dt_softplus) {
  StateUpdateArgs args{
      x, dt, A, B, C, or_undefined(D), or_undefined(dt_bias), or_undefined(z), dt_softplus};
  return selective_state_update(state, args);
}

at::Tensor gated(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                 const OptionalTensor& z, double eps, std::optional<int64_t> group_size,
                 bool norm_before_gate) {
  return gated_rms_norm({x, or_undefined(z), weight, or_undefined(bias), eps,
                         group_size.value_or(0), norm_before_gate});
}

std::tuple<at::Tensor, at::Tensor> added(const at::Tensor& x, const OptionalTensor& residual,
                                         const at::Tensor& weight, const OptionalTensor& bias,
                                         bool rms, double eps, bool residual_in_fp32) {
  AddNormResult made = add_norm({x, or_undefined(residual), weight, or_undefined(bias),
                                 rms ? NormKind::kRms : NormKind::kLayer, eps, residual_in_fp32});
  return {made.y, made.residual};
}

}  // namespace
}  // namespace serpentine

TORCH_LIBRARY_FRAGMENT(serpentine, library) {
  library.def(
      "ssd(Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D=None, "
      "Tensor? dt_bias=None, Tensor? initial_state=None, bool dt_softplus=True, "
      "float dt_min=0., float? dt_max=None, int chunk=0, *, Tensor? tokens=None, "
      "Tensor? offsets=None, Tensor? branch=None, Tensor? visits=None, bool complete=False, "
      "int? num_tokens=None, str rows='token', str merge='sum', bool return_final_state=False) -> "
      "(Tensor, Tensor)",
      &serpentine::duality);
  library.def(
      "mamba_chunk_scan_combined(Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, "
      "int chunk_size=0, Tensor? D=None, Tensor? z=None, Tensor? dt_bias=None, "
      "Tensor? initial_states=None, Tensor? seq_idx=None, Tensor? cu_seqlens=None, "
      "bool dt_softplus=False, float dt_min=0., float? dt_max=None) -> (Tensor, Tensor, Tensor)",
      &serpentine::chunk_scan);
  library.def(
      "selective_state_update(Tensor(a!) state, Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, "
      "Tensor? D=None, Tensor? z=None, Tensor? dt_bias=None, bool dt_softplus=False) -> Tensor",
      &serpentine::state_update);
  library.def(
      "gated_rms_norm(Tensor x, Tensor weight, Tensor? bias=None, Tensor? z=None, float eps=1e-5, "
      "int? group_size=None, bool norm_before_gate=True) -> Tensor",
      &serpentine::gated);
  library.def(
      "add_norm(Tensor x, Tensor? residual, Tensor weight, Tensor? bias=None, bool rms=True, "
      "float eps=1e-5, bool residual_in_fp32=False) -> (Tensor, Tensor)",
      &serpentine::added);
}
