// Everything that a YAML file can name.
#pragma once

#include "core/catalog.h"
#include "core/data/source.h"
#include "core/registry.h"
#include "core/train/task.h"

namespace serpentine {

struct Packages {
  Registry<Model> models{"model"};
  Registry<DataSource> sources{"data"};
  Registry<Task> tasks{"task"};

  Catalog catalog() const;
};

/// Calls every folder's list.
Packages all_packages();

}  // namespace serpentine
