#include "segmentation/segmentation.h"

namespace serpentine {

void add_segmentation_models(Registry<Model>& all) {
  add_unet(all);
  add_umamba(all);
  add_segmamba(all);
}

void add_segmentation_sources(Registry<DataSource>& all) { (void)all; }

void add_segmentation_tasks(Registry<Task>& all) { (void)all; }

}  // namespace serpentine
