// The argument checks that the scan and its reference share.
#pragma once

#include "core/ops/selective_scan.h"

namespace serpentine {

/// Throws c10::Error when a shape, type or device does not fit the order.
void check_selective_scan(const SelectiveScanArgs& args, const ScanOrder& order, Rows rows);

}  // namespace serpentine
