#include "segmentation/segmentation.h"

namespace serpentine {

void add_segmentation_models(Registry<Model>& all) {
  add_unet(all);
  add_umamba(all);
  add_segmamba(all);
  add_vmunet(all);
  add_upernet(all);
}

void add_segmentation_sources(Registry<DataSource>& all) { add_patch_source(all); }

void add_segmentation_tasks(Registry<Task>& all) { add_segment_task(all); }

}  // namespace serpentine
