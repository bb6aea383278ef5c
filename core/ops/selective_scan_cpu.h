// The selective scan on a CPU: vectors over channels, threads over samples, sequences and channels.
#pragma once

#include "core/ops/selective_scan.h"

namespace serpentine::cpu {

/// As serpentine::selective_scan, for checked arguments on the CPU.
SelectiveScanResult selective_scan(const SelectiveScanArgs& args, const ScanOrder& order, Rows rows,
                                   Merge merge, bool want_final_state);

}  // namespace serpentine::cpu
