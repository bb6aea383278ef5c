// A planted mistake: core must not know a domain. layers.cmake has to refuse it.
#include "timeseries/series.h"
