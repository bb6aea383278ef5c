// The published calls of causal-conv1d (Dao-AILab), channels first, over the library's own
// convolution.
//
// B batch, D channels, L length, W width.
#pragma once

#include <ATen/core/Tensor.h>

namespace serpentine {

struct PublishedConvResult {
  at::Tensor out;           // [B, D, L]
  at::Tensor final_states;  // [B, D, W - 1]; undefined unless asked for
};

/// x: [B, D, L], weight: [D, W], bias: [D] or undefined, initial_states: [B, D, W - 1] or
/// undefined. Differs from the CUDA original: any width to 7, any strides, fp64, no multiple-of-8
/// rule.
PublishedConvResult causal_conv1d_fn(const at::Tensor& x, const at::Tensor& weight,
                                     const at::Tensor& bias = {},
                                     const at::Tensor& initial_states = {},
                                     bool return_final_states = false, bool silu = false);

/// The next sample(s) of a decoding. x: [B, D] or [B, D, L]; conv_state: [B, D, M], M >= W - 1,
/// changed in place: it holds the last M samples, or with cache_seqlens (integers [B], the samples
/// seen so far) it is a circular buffer. Returns x's shape.
at::Tensor causal_conv1d_update(const at::Tensor& x, at::Tensor& conv_state,
                                const at::Tensor& weight, const at::Tensor& bias = {},
                                bool silu = false, const at::Tensor& cache_seqlens = {});

/// The last `state_len` samples of each packed sequence. x: [total, D], cu_seqlens: integers [S +
/// 1] -> [S, D, state_len]; shorter (also empty) sequences are left-padded with zeros.
at::Tensor causal_conv1d_varlen_states(const at::Tensor& x, const at::Tensor& cu_seqlens,
                                       int64_t state_len);

}  // namespace serpentine
