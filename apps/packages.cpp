#include "apps/packages.h"

#include "core/train/classification.h"
#include "pathology/pathology.h"
#include "pointcloud/pointcloud.h"
#include "scans/serialization.h"
#include "segmentation/segmentation.h"
#include "timeseries/timeseries.h"
#include "vision/vision.h"

namespace serpentine {

Packages all_packages() {
  Packages all;
  add_forecast_models(all.models);
  add_forecast_sources(all.sources);
  add_forecast_tasks(all.tasks);
  add_point_models(all.models);
  add_point_sources(all.sources);
  add_point_tasks(all.tasks);
  add_classification_task(all.tasks);
  add_vision_models(all.models);
  add_vision_sources(all.sources);
  add_vision_tasks(all.tasks);
  add_segmentation_models(all.models);
  add_segmentation_sources(all.sources);
  add_segmentation_tasks(all.tasks);
  add_pathology_models(all.models);
  add_pathology_sources(all.sources);
  add_pathology_tasks(all.tasks);
  return all;
}

Catalog Packages::catalog() const {
  Catalog catalog;
  catalog.add(models);
  catalog.add(sources);
  catalog.add(tasks);
  Registry<Serialization> scans("serialization");
  add_serializations(scans);
  catalog.add(scans);
  return catalog;
}

}  // namespace serpentine
