// Checks of the recordings of segmentation models.
#include "golden/golden.h"

namespace serpentine::golden {

void add_segmentation_checkers(Checkers& all) { (void)all; }

}  // namespace serpentine::golden
