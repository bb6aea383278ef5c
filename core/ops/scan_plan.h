// How one scan call is cut into work, and its tensors as the kernel's plain memory.
#pragma once

#include <vector>

#include "core/ops/scan_kernel.h"
#include "core/ops/selective_scan.h"

namespace serpentine::cpu {

/// Owns what `call` points to; the cuts depend on the order and shapes only, never on the threads.
struct ScanPlan {
  ScanPlan(const SelectiveScanArgs& args, const ScanOrder& order, Rows rows);
  ScanPlan(const ScanPlan&) = delete;
  ScanPlan& operator=(const ScanPlan&) = delete;

  void run_forward() const;
  void run_backward() const;

  ScanCall call;
  std::vector<Slab> slabs;
  std::vector<int64_t> saved_before;
  at::ScalarType type, wide;         // of the rows; of states and sums
  std::vector<at::Tensor> operands;  // dense enough for the kernel, and A in blocks

 private:
  void cut(const ScanOrder& order);
  void run(int64_t items, bool backward) const;
};

/// A view of rows [B, R, X] or [B, R, K, X] with a dense last axis.
RowsView view_rows(const at::Tensor& rows, bool by_token);

}  // namespace serpentine::cpu
