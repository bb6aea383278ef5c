// Images: what the folder offers to the program, by name.
//
// Fields of a Batch (B images of one size, C channels; float32 after normalisation):
//   input   [B, C, H, W]
//   target  int64 [B] the class, or float32 [B, K] shares of each class (mixup, soft labels)
#pragma once

#include "core/data/source.h"
#include "core/registry.h"
#include "core/train/task.h"

namespace serpentine {

void add_vision_models(Registry<Model>& all);
void add_vision_sources(Registry<DataSource>& all);
void add_vision_tasks(Registry<Task>& all);

}  // namespace serpentine
