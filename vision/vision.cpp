#include "vision/vision.h"

namespace serpentine {

void add_vision_models(Registry<Model>& all) {
  add_vmamba(all);
  add_resnet(all);
}

void add_vision_tasks(Registry<Task>& all) { (void)all; }

}  // namespace serpentine
