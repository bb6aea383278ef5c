// The list of image sources.
#include "vision/vision.h"

namespace serpentine {

void add_vision_sources(Registry<DataSource>& all) {
  add_image_folder(all);
  add_image_list(all);
  add_idx(all);
  add_cifar(all);
  add_medmnist(all);
  add_shards(all);
}

}  // namespace serpentine
