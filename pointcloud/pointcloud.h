// Point clouds: what the folder offers to the program, by name.
//
// Fields of a Batch (N points a cloud, all clouds of a batch alike; float32):
//   input  [B, N, 3]   coordinates, in the unit of the files or scaled to the unit sphere
//   target int64 [B]   the cloud's class, or int64 [B, N] each point's (-1: it has none)
//   named:
//     features    [B, N, C]  what else is known of a point (normals, colour, height above the
//                            lowest); absent: models read the coordinates
//     shape_class int64 [B]  of the whole shape, where only its parts are asked for
//     mask        bool [B, G]  the groups that masked pre-training hides, in the order of the scan;
//                              absent: drawn
//     curve       int64 [1]    which of its two orders masked pre-training takes; absent: drawn
#pragma once

#include "core/data/source.h"
#include "core/registry.h"
#include "core/train/task.h"

namespace serpentine {

// pcm_cls pcm_partseg pointnet2 pcm_semseg point_mamba point_mamba_masked mamba3d
void add_point_models(Registry<Model>& all);
void add_point_sources(Registry<DataSource>& all);  // clouds, scenes
// cloud_classification, cloud_reconstruction, point_classification
void add_point_tasks(Registry<Task>& all);

// what the lists above call
void add_pcm(Registry<Model>& all);
void add_point_mamba(Registry<Model>& all);
void add_point_mamba_masked(Registry<Model>& all);
void add_mamba3d(Registry<Model>& all);
void add_pointnet2(Registry<Model>& all);
void add_cloud_source(Registry<DataSource>& all);
void add_scene_source(Registry<DataSource>& all);
void add_cloud_tasks(Registry<Task>& all);
void add_point_task(Registry<Task>& all);

}  // namespace serpentine
