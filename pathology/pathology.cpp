#include "pathology/pathology.h"

namespace serpentine {

void add_pathology_models(Registry<Model>& all) { (void)all; }

void add_pathology_sources(Registry<DataSource>& all) { (void)all; }

void add_pathology_tasks(Registry<Task>& all) { (void)all; }

}  // namespace serpentine
