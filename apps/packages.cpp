#include "apps/packages.h"

#include "pointcloud/pointcloud.h"
#include "timeseries/timeseries.h"

namespace serpentine {

Packages all_packages() {
  Packages all;
  add_forecast_models(all.models);
  add_forecast_sources(all.sources);
  add_forecast_tasks(all.tasks);
  add_point_models(all.models);
  add_point_sources(all.sources);
  add_point_tasks(all.tasks);
  return all;
}

Catalog Packages::catalog() const {
  Catalog catalog;
  catalog.add(models);
  catalog.add(sources);
  catalog.add(tasks);
  return catalog;
}

}  // namespace serpentine
