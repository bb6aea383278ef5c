// Checkers of the forecasting models.
#include "golden/golden.h"

namespace serpentine::golden {

void add_timeseries_checkers(Checkers&) {}

}  // namespace serpentine::golden
