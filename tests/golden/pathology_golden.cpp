// Checks of the recordings of pathology models.
#include "golden/golden.h"

namespace serpentine::golden {

void add_pathology_checkers(Checkers& all) { (void)all; }

}  // namespace serpentine::golden
