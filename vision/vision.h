// Images: what the folder offers to the program, by name.
//
// Fields of a Batch (B images of one size, C channels; float32 after normalisation):
//   input   [B, C, H, W]
//   target  int64 [B] the class, or float32 [B, K] shares of each class (mixup, soft labels)
//   named: index   int64 [B]  which examples of the part these are
//          weight  [B]        of each example in the training loss; absent: all alike
#pragma once

#include "core/data/source.h"
#include "core/registry.h"
#include "core/train/task.h"

namespace serpentine {

// vim vmamba efficient_vmamba shuffle_mamba plain_mamba medmamba vim2 resnet
void add_vision_models(Registry<Model>& all);
// image_folder image_list idx cifar medmnist shards
void add_vision_sources(Registry<DataSource>& all);
void add_vision_tasks(Registry<Task>& all);  // distillation

void add_image_folder(Registry<DataSource>& all);
void add_image_list(Registry<DataSource>& all);
void add_idx(Registry<DataSource>& all);
void add_cifar(Registry<DataSource>& all);
void add_medmnist(Registry<DataSource>& all);
void add_shards(Registry<DataSource>& all);
void add_distillation(Registry<Task>& all);

/// Throws unless the teacher of a `distillation` saw pictures as `description` (data.json) says.
void check_teacher(const Config& task, const nlohmann::json& description);
// what the lists above call
void add_vim(Registry<Model>& all);
void add_vmamba(Registry<Model>& all);
void add_efficient_vmamba(Registry<Model>& all);
void add_shuffle_mamba(Registry<Model>& all);
void add_plain_mamba(Registry<Model>& all);
void add_medmamba(Registry<Model>& all);
void add_vim2(Registry<Model>& all);
void add_resnet(Registry<Model>& all);

}  // namespace serpentine
