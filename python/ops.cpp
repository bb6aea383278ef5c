// Registers the operators for Python under torch.ops.serpentine: load with torch.ops.load_library.
//
// Each call is the C++ function itself, whose autograd functions record the gradients, so that no
// operator needs a second registration. Letters as in core/ops/selective_scan.h.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <optional>
#include <string_view>
#include <tuple>

#include "core/ops/causal_conv1d_published.h"
#include "core/ops/selective_scan.h"
#include "core/ops/selective_scan_published.h"
#include "python/arguments.h"

namespace serpentine {
namespace {

std::tuple<at::Tensor, at::Tensor> scan(
    const at::Tensor& u, const at::Tensor& delta, const at::Tensor& A, const at::Tensor& B,
    const at::Tensor& C, const OptionalTensor& D, const OptionalTensor& delta_bias,
    const OptionalTensor& initial_state, bool delta_softplus, const OptionalTensor& tokens,
    const OptionalTensor& offsets, const OptionalTensor& branch, const OptionalTensor& visits,
    bool complete, std::optional<int64_t> num_tokens, std::string_view rows, std::string_view merge,
    bool return_final_state) {
  if (u.is_meta()) {
    const int64_t visits_in_row =
        parse_merge(merge) == Merge::kConcat && visits ? visits->size(-1) : 1;
    const int64_t sequences = branch ? branch->size(0) : offsets ? offsets->size(0) - 1 : 1;
    const int64_t rows_out = num_tokens.value_or(visits ? visits->size(-2) : u.size(1));
    return {u.new_empty({u.size(0), rows_out, visits_in_row * u.size(2)}),
            A.new_empty({u.size(0), sequences, u.size(2), A.size(2)})};
  }
  SelectiveScanArgs args;
  args.u = u;
  args.delta = delta;
  args.A = A;
  args.B = B;
  args.C = C;
  args.D = or_undefined(D);
  args.delta_bias = or_undefined(delta_bias);
  args.initial_state = or_undefined(initial_state);
  args.delta_softplus = delta_softplus;
  const ScanOrder order =
      order_of(u, A.size(0), tokens, offsets, branch, visits, complete, num_tokens);
  SelectiveScanResult result =
      selective_scan(args, order, parse_rows(rows), parse_merge(merge), return_final_state);
  return {result.y, result.final_state};
}

std::tuple<at::Tensor, at::Tensor> published_scan(const at::Tensor& u, const at::Tensor& delta,
                                                  const at::Tensor& A, const at::Tensor& B,
                                                  const at::Tensor& C, const OptionalTensor& D,
                                                  const OptionalTensor& z,
                                                  const OptionalTensor& delta_bias,
                                                  bool delta_softplus, bool return_last_state) {
  if (u.is_meta()) {
    return {at::empty_like(u), A.new_empty({u.size(0), u.size(1), A.size(1)})};
  }
  PublishedScanArgs args;
  args.u = u;
  args.delta = delta;
  args.A = A;
  args.B = B;
  args.C = C;
  args.D = or_undefined(D);
  args.z = or_undefined(z);
  args.delta_bias = or_undefined(delta_bias);
  args.delta_softplus = delta_softplus;
  PublishedScanResult result = selective_scan_fn(args, return_last_state);
  return {result.out, result.last_state};
}

std::tuple<at::Tensor, at::Tensor> convolve(const at::Tensor& x, const at::Tensor& weight,
                                            const OptionalTensor& bias,
                                            const OptionalTensor& initial_states,
                                            bool return_final_states,
                                            std::optional<std::string_view> activation) {
  TORCH_CHECK(!activation || *activation == "silu" || *activation == "swish",
              "causal_conv1d_fn: activation must be None, silu or swish, got ", *activation);
  PublishedConvResult result =
      causal_conv1d_fn(x, weight, or_undefined(bias), or_undefined(initial_states),
                       return_final_states, activation.has_value());
  return {result.out, result.final_states};
}

}  // namespace
}  // namespace serpentine

TORCH_LIBRARY(serpentine, library) {
  library.def(
      "selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D=None, "
      "Tensor? delta_bias=None, Tensor? initial_state=None, bool delta_softplus=True, *, "
      "Tensor? tokens=None, Tensor? offsets=None, Tensor? branch=None, Tensor? visits=None, "
      "bool complete=False, "
      "int? num_tokens=None, str rows='token', str merge='sum', bool return_final_state=False) -> "
      "(Tensor, Tensor)",
      &serpentine::scan);
  library.def(
      "make_order(Tensor tokens, Tensor? offsets, Tensor? branch, int num_tokens) -> "
      "(Tensor tokens, Tensor offsets, Tensor branch, Tensor visits, bool complete)",
      &serpentine::order_parts);
  library.def(
      "selective_scan_fn(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D=None, "
      "Tensor? z=None, Tensor? delta_bias=None, bool delta_softplus=False, "
      "bool return_last_state=False) -> (Tensor, Tensor)",
      &serpentine::published_scan);
  library.def(
      "causal_conv1d_fn(Tensor x, Tensor weight, Tensor? bias=None, Tensor? initial_states=None, "
      "bool return_final_states=False, str? activation=None) -> (Tensor, Tensor)",
      &serpentine::convolve);
}
