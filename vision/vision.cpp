#include "vision/vision.h"

namespace serpentine {

void add_vision_models(Registry<Model>& all) {
  add_vim(all);
  add_vmamba(all);
  add_efficient_vmamba(all);
  add_shuffle_mamba(all);
  add_plain_mamba(all);
  add_medmamba(all);
  add_vim2(all);
  add_resnet(all);
}

void add_vision_tasks(Registry<Task>& all) { add_distillation(all); }

}  // namespace serpentine
