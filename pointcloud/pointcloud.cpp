#include "pointcloud/pointcloud.h"

namespace serpentine {

void add_point_models(Registry<Model>& all) { add_pcm(all); }

}  // namespace serpentine
