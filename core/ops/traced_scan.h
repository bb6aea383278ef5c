// The selective scan while a model is traced for export: everything but the recurrence as plain
// tensor operators, the recurrence as one node `serpentine::recurrence`.
#pragma once

#include "core/ops/merge.h"
#include "core/ops/selective_scan.h"

namespace serpentine {

/// Whether this thread records what a model does (torch::jit::tracer::trace).
bool is_traced();

/// selective_scan with the same result. The node it leaves has the inputs delta, u [L, B, S, D] and
/// b, c [L, B, S, N], A [S, D, N] and the output y [L, B, S, D]:
///   h_l = exp(delta_l A) h_{l-1} + delta_l u_l b_l,   y_l = sum_n h_l c_l.
/// Sequences are padded at their ends to the longest, L.
SelectiveScanResult traced_selective_scan(const SelectiveScanArgs& args, const ScanOrder& order,
                                          Rows rows, Merge merge);

}  // namespace serpentine
