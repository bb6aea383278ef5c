// Checkers of the published selective scan calls.
#include "golden/golden.h"

namespace serpentine::golden {

void add_scan_checkers(Checkers&) {}

}  // namespace serpentine::golden
