#include "vision/vision.h"

namespace serpentine {

void add_vision_models(Registry<Model>& all) { (void)all; }

void add_vision_tasks(Registry<Task>& all) { (void)all; }

}  // namespace serpentine
