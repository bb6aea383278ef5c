// What ssd and its reference share: checks, and operands with one row a position.
#pragma once

#include "core/ops/ssd.h"

namespace serpentine {

/// Shapes, dtypes and devices. Throws a sentence that names the operand.
void check_ssd(const SsdArgs& args, const ScanOrder& order, Rows rows);

/// float32, or float64 for float64 operands.
at::ScalarType ssd_wide(const SsdArgs& args);

/// Differentiable in the operands of SsdArgs.
struct SsdRows {
  at::Tensor x;     // [B, P, H, E]
  at::Tensor dt;    // [B, P, H], wide: after bias, softplus and limits
  at::Tensor a;     // [B, P, H], wide: the logarithm of the decay
  at::Tensor B, C;  // [B, P, G, N]
};
SsdRows ssd_rows(const SsdArgs& args, const ScanOrder& order, Rows rows);

/// A parameter of branches, [K, ...], at every position: [P, ...], or [1, ...] for one branch. Its
/// gradient sums in a fixed order.
at::Tensor at_positions(const at::Tensor& parameter, const ScanOrder& order);

/// Merged rows [B, T, X E] as heads: [B, T, X, E].
at::Tensor as_heads(const at::Tensor& rows, int64_t channels);

}  // namespace serpentine
