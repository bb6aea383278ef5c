#include "pointcloud/pointcloud.h"

namespace serpentine {

void add_point_models(Registry<Model>& all) {
  add_pcm(all);
  add_point_mamba(all);
  add_point_mamba_masked(all);
  add_mamba3d(all);
  add_pointnet2(all);
}

void add_point_sources(Registry<DataSource>& all) {
  add_cloud_source(all);
  add_scene_source(all);
}

void add_point_tasks(Registry<Task>& all) {
  add_cloud_tasks(all);
  add_point_task(all);
}

}  // namespace serpentine
