// Checks of the recordings of Mamba-2, Mamba-3, SSD, S4 and Hydra.
#include "golden/golden.h"

namespace serpentine::golden {

void add_ssm_checkers(Checkers& all) { (void)all; }

}  // namespace serpentine::golden
