// Tensors as the CUDA kernels' plain memory, and the sums that follow them, as tensors.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "core/ops/scan_cuda.h"
#include "core/scan_order.h"

namespace serpentine::cuda {

/// The current stream of the current device.
void* stream();

/// Throws "who: CUDA: ..." when a launch returned an error's text.
void check_launch(const char* who, const char* error);

Element element_of(at::ScalarType type);

/// Dense in the last axis, and with a row stride that 32 bits hold in bytes.
at::Tensor with_dense_rows(const at::Tensor& rows);

/// rows: [B, R, X] or [B, R, K, X], dense in the last axis.
RowsView view_rows(const at::Tensor& rows, bool by_token);

/// The fields of a call that an order gives; `order` must outlive it.
void set_order(ScanCall& call, const ScanOrder& order);

/// parts: [G, B, P, X] -> [B, T, X] or [B, T, K, X]: summed over G and each token's visits; without
/// `visits` a token is a position. by_branch
/// keeps branches apart, mean divides by the visits.
at::Tensor sum_rows(const at::Tensor& parts, const ScanOrder& order, bool visits, bool by_branch,
                    bool mean, at::ScalarType type);

/// parts: R [B, slots, rows, padded], each slot into its branch -> [K, rows, width].
struct SlotParts {
  const void* parts = nullptr;
  int64_t rows = 0, width = 1, padded = 1;
};
/// In one launch, at most kMostSums of them.
std::vector<at::Tensor> sum_slots(const ScanCall& call, const std::vector<SlotParts>& all,
                                  const at::TensorOptions& type);

}  // namespace serpentine::cuda
