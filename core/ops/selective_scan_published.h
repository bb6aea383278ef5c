// The published calls of mamba_ssm's selective scan, channels first, over the library's own scan.
//
// B batch, D channels (dim), N states (dstate), L length, G groups, H heads.
#pragma once

#include <ATen/core/Tensor.h>

namespace serpentine {

struct PublishedScanArgs {
  at::Tensor u, delta;  // [B, D, L]; fp32, fp64, bf16 or fp16
  at::Tensor A;         // [D, N], real
  at::Tensor B, C;  // [D, N] (constant), [B, N, L] or [B, G, N, L]; G may differ between the two
  at::Tensor D;     // [D] or undefined
  at::Tensor z;     // [B, D, L] or undefined: the output is multiplied by silu(z)
  at::Tensor delta_bias;  // [D] or undefined
  bool delta_softplus = false;
};

struct PublishedScanResult {
  at::Tensor out;         // [B, D, L], u's dtype
  at::Tensor last_state;  // [B, D, N], A's dtype; undefined unless asked for
};

/// Sums in fp32 (fp64 if u is) and rounds once, after the gate. Groups take consecutive channels.
/// A constant B or C is scanned a state at a time, forward and backward, so that no tensor has
/// B L D N values: for parity rather than speed. Differs from the CUDA original: real A only, but
/// fp64, any strides, and gradients through last_state.
PublishedScanResult selective_scan_fn(const PublishedScanArgs& args,
                                      bool return_last_state = false);

struct StateUpdateArgs {
  at::Tensor x, dt;       // [B, D] or [B, H, D]
  at::Tensor A;           // [D, N] or [H, D, N]
  at::Tensor B, C;        // [B, N] or, with heads, [B, G, N]
  at::Tensor D, dt_bias;  // [D] or [H, D], may be undefined
  at::Tensor z;           // x's shape, may be undefined
  bool dt_softplus = false;
};

/// One step of decoding. state: [B, D, N] or [B, H, D, N], changed in place. Returns x's shape and
/// dtype.
at::Tensor selective_state_update(at::Tensor& state, const StateUpdateArgs& args);

}  // namespace serpentine
