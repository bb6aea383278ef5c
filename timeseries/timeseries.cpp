#include "timeseries/timeseries.h"

#include <nlohmann/json.hpp>

namespace serpentine {

void add_forecast_models(Registry<Model>& all) {
  add_s_mamba(all);
  add_itransformer(all);
  add_dlinear(all);
  add_naive(all);
}

}  // namespace serpentine
