#include "pointcloud/pointcloud.h"

namespace serpentine {

void add_point_models(Registry<Model>& all) {
  add_pcm(all);
  add_point_mamba(all);
  add_point_mamba_masked(all);
  add_mamba3d(all);
  add_pointnet2(all);
}

}  // namespace serpentine
