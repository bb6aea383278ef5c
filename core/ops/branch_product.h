// Rows of several branches, branch after branch, each through a matrix of its own.
// B batch, P positions, K branches, I values in, O values out.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "core/scan_order.h"

namespace serpentine {

/// The positions of each branch, [K]. Waits for a GPU unless the order is complete, has one branch
/// or was asked for lately.
std::vector<int64_t> branch_sizes(const ScanOrder& order);

/// to[b, p] = (add ? to[b, p] : 0) + rows[b, p] matrix[branch of p], without a copy of the rows.
/// to: [B, P, O], rows: [B, P, I], matrices: [K, I, O], any strides; sizes: positions of each
/// branch. No autograd.
void branch_product(const at::Tensor& to, const at::Tensor& rows, const at::Tensor& matrices,
                    const std::vector<int64_t>& sizes, bool add);

/// [K, O, I]: the sums over b and a branch's p of left[b, p] right[b, p]^T.
/// left: [B, P, O], right: [B, P, I]. No autograd.
at::Tensor branch_gram(const at::Tensor& left, const at::Tensor& right,
                       const std::vector<int64_t>& sizes);

}  // namespace serpentine
