// Sums of rows over parts, visits and slabs in a fixed order: what keeps the CPU scan
// deterministic.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "core/ops/scan_kernel.h"
#include "core/scan_order.h"

namespace serpentine::cpu {

/// parts: float or double [G, B, P, X], summed over G -> [B, P, X] of dtype `type`, seen as
/// `shape`.
at::Tensor sum_parts(const at::Tensor& parts, at::ScalarType type, at::IntArrayRef shape);

/// The rows of each token's visits, summed over G and the visits -> [B, T, X], or [B, T, K, X] when
/// `by_branch` keeps the branches apart; `mean` divides by the number of visits.
at::Tensor sum_visits(const at::Tensor& parts, const ScanOrder& order, bool by_branch, bool mean,
                      at::ScalarType type);

/// parts: [B, slabs, ...] -> [K, ...], each slab into its branch, over the batch.
at::Tensor sum_slabs(const at::Tensor& parts, const std::vector<Slab>& slabs, int64_t num_branches);

}  // namespace serpentine::cpu
