#include "core/ops/selective_scan.h"

#include "core/ops/selective_scan_check.h"
#include "core/ops/selective_scan_cpu.h"

namespace serpentine {

SelectiveScanResult selective_scan(const SelectiveScanArgs& args, const ScanOrder& order, Rows rows,
                                   Merge merge, bool want_final_state) {
  check_selective_scan(args, order, rows);
  if (args.u.is_cpu()) return cpu::selective_scan(args, order, rows, merge, want_final_state);
  return selective_scan_reference(args, order, rows, merge, want_final_state);
}

}  // namespace serpentine
