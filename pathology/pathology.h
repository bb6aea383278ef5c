// Whole slides and bags of tiles: what the folder offers to the program, by name.
//
// Fields of a Batch (bags packed one after another; float32):
//   input   [T, F]    the features of every tile of the batch
//   offsets int32 [B + 1]: bag b owns rows [offsets[b], offsets[b + 1])
//   coords  [T, 2]    x, y of each tile's corner in pixels of level 0; may be undefined
//   target  int64 [B] the class of each bag, or its time bin
// More of them stand in bag_source.h.
#pragma once

#include "core/data/source.h"
#include "core/registry.h"
#include "core/train/task.h"

namespace serpentine {

void add_pathology_models(Registry<Model>& all);
void add_pathology_sources(Registry<DataSource>& all);
void add_pathology_tasks(Registry<Task>& all);

// models of bags
void add_mamba_mil(Registry<Model>& all);
void add_mean_max_mil(Registry<Model>& all);
void add_ab_mil(Registry<Model>& all);
void add_ds_mil(Registry<Model>& all);
void add_clam(Registry<Model>& all);
void add_trans_mil(Registry<Model>& all);
void add_s4_mil(Registry<Model>& all);

void add_bag_source(Registry<DataSource>& all);
void add_bag_tasks(Registry<Task>& all);

}  // namespace serpentine
