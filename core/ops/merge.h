// The two primitives that close the algebra of orders: each is the other's gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/scan_order.h"

namespace serpentine {

/// x: [B, T, D] -> [B, P, D]: the row of the token at each position, zeros at pads. Differentiable.
at::Tensor gather_rows(const at::Tensor& x, const ScanOrder& order);

/// x: [B, P, D] -> [B, T, D] (sum, mean over real visits) or [B, T, V D] (concat). Fixed order, no
/// atomics. Differentiable.
at::Tensor merge_rows(const at::Tensor& x, const ScanOrder& order, Merge merge);

}  // namespace serpentine
