// Checks of the recordings of vision models.
#include "golden/golden.h"

namespace serpentine::golden {

void add_vision_checkers(Checkers& all) { (void)all; }

}  // namespace serpentine::golden
