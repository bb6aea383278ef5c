// Segmentation of images and volumes: what the folder offers to the program, by name.
//
// Fields of a Batch (patches of one size; float32):
//   input   [B, C, H, W] or [B, C, D, H, W]
//   target  int64 [B, H, W] or [B, D, H, W]: the class of each pixel or voxel, or of regions that
//           may overlap one bit a region; -1 is ignored
#pragma once

#include "core/data/source.h"
#include "core/registry.h"
#include "core/train/task.h"

namespace serpentine {

void add_segmentation_models(Registry<Model>& all);

// the models
void add_unet(Registry<Model>& all);
void add_umamba(Registry<Model>& all);
void add_segmamba(Registry<Model>& all);
void add_vmunet(Registry<Model>& all);
void add_upernet(Registry<Model>& all);

void add_segmentation_sources(Registry<DataSource>& all);
void add_segmentation_tasks(Registry<Task>& all);

// data and task, both called "segmentation"
void add_patch_source(Registry<DataSource>& all);
void add_segment_task(Registry<Task>& all);

}  // namespace serpentine
