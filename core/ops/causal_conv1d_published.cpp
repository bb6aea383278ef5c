#include "core/ops/causal_conv1d_published.h"

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/causal_conv1d.h"

namespace serpentine {
namespace {

constexpr const char* kConvFn = "causal_conv1d_fn";
constexpr const char* kConvUpdate = "causal_conv1d_update";
constexpr const char* kVarlen = "causal_conv1d_varlen_states";

/// The convolution of channels-first samples with what lies before them. before: [B, D, W - 1] or
/// undefined.
CausalConv1dResult convolve(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            const at::Tensor& before, bool silu, bool want_final_state) {
  CausalConv1dArgs args;
  args.x = x.transpose(1, 2);
  args.weight = weight.unsqueeze(0);
  if (bias.defined()) args.bias = bias.unsqueeze(0);
  if (before.defined()) args.initial_state = before.transpose(1, 2).unsqueeze(1);
  args.silu = silu;
  return causal_conv1d(args, identity_order(x.size(2), x.device()), want_final_state);
}

/// Where in a circular buffer of `length` lie samples first .. first + count - 1 of each sequence:
/// [B, D, count].
at::Tensor circular(const at::Tensor& first, int64_t count, int64_t channels, int64_t length) {
  const at::Tensor index = first.unsqueeze(1) + at::arange(count, first.options());
  return index.remainder(length).unsqueeze(1).expand({first.size(0), channels, count});
}

}  // namespace

PublishedConvResult causal_conv1d_fn(const at::Tensor& x, const at::Tensor& weight,
                                     const at::Tensor& bias, const at::Tensor& initial_states,
                                     bool return_final_states, bool silu) {
  check_shape(kConvFn, x, "x", {-1, -1, -1}, "B, D, L");
  check_shape(kConvFn, weight, "weight", {x.size(1), -1}, "D, W");
  if (bias.defined()) check_shape(kConvFn, bias, "bias", {x.size(1)}, "D");
  if (initial_states.defined()) {
    check_shape(kConvFn, initial_states, "initial_states",
                {x.size(0), x.size(1), weight.size(1) - 1}, "B, D, W - 1");
  }
  const auto made = convolve(x, weight, bias, initial_states, silu, return_final_states);
  PublishedConvResult result{made.y.transpose(1, 2), {}};
  if (return_final_states) result.final_states = made.final_state.squeeze(1).transpose(1, 2);
  return result;
}

at::Tensor causal_conv1d_update(const at::Tensor& x, at::Tensor& conv_state,
                                const at::Tensor& weight, const at::Tensor& bias, bool silu,
                                const at::Tensor& cache_seqlens) {
  SERPENTINE_CHECK(x.defined() && (x.dim() == 2 || x.dim() == 3), kConvUpdate,
                   "x must be [B, D] or [B, D, L]");
  const at::Tensor samples = x.dim() == 2 ? x.unsqueeze(-1) : x;
  const int64_t batch = samples.size(0), channels = samples.size(1), count = samples.size(2);
  check_shape(kConvUpdate, weight, "weight", {channels, -1}, "D, W");
  if (bias.defined()) check_shape(kConvUpdate, bias, "bias", {channels}, "D");
  check_shape(kConvUpdate, conv_state, "conv_state", {batch, channels, -1}, "B, D, M");
  const int64_t before = weight.size(1) - 1, length = conv_state.size(2);
  SERPENTINE_CHECK(length >= before, kConvUpdate, "conv_state must hold at least W - 1 = ", before,
                   " samples, got ", length);
  at::Tensor past;
  if (cache_seqlens.defined()) {
    check_shape(kConvUpdate, cache_seqlens, "cache_seqlens", {batch}, "B");
    const at::Tensor seen = cache_seqlens.to(at::kLong);
    past = before > 0 ? conv_state.gather(2, circular(seen - before, before, channels, length))
                      : conv_state.narrow(2, 0, 0);

    // of more samples than the buffer holds only the last are kept
    const int64_t kept = std::min(count, length);
    if (kept > 0) {
      conv_state.scatter_(2, circular(seen + count - kept, kept, channels, length),
                          samples.narrow(2, count - kept, kept).to(conv_state.scalar_type()));
    }
  } else {
    past = conv_state.narrow(2, length - before, before).clone();
    const at::Tensor all = at::cat({conv_state, samples.to(conv_state.scalar_type())}, 2);
    conv_state.copy_(all.narrow(2, count, length));
  }
  const at::Tensor y = convolve(samples, weight, bias, past, silu, false).y.transpose(1, 2);
  return x.dim() == 2 ? y.squeeze(-1) : y;
}

at::Tensor causal_conv1d_varlen_states(const at::Tensor& x, const at::Tensor& cu_seqlens,
                                       int64_t state_len) {
  check_shape(kVarlen, x, "x", {-1, -1}, "total, D");
  check_shape(kVarlen, cu_seqlens, "cu_seqlens", {-1}, "S + 1");
  SERPENTINE_CHECK(cu_seqlens.size(0) >= 1, kVarlen,
                   "cu_seqlens must have at least one entry, got none");
  SERPENTINE_CHECK(state_len >= 0, kVarlen, "state_len must not be negative, got ", state_len);
  const at::Tensor edges = cu_seqlens.to(x.device(), at::kLong);
  const at::Tensor row =
      edges.slice(0, 1).unsqueeze(1) + at::arange(-state_len, 0, edges.options());
  const at::Tensor inside = row >= edges.slice(0, 0, -1).unsqueeze(1);
  const at::Tensor padded =
      at::cat({x, at::zeros({1, x.size(1)}, x.options())}, 0);  // the last row is the pad
  const at::Tensor from = at::where(inside, row, at::full({}, x.size(0), row.options()));
  return padded.index_select(0, from.flatten())
      .view({row.size(0), state_len, x.size(1)})
      .transpose(1, 2);
}

}  // namespace serpentine
