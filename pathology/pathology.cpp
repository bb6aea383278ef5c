#include "pathology/pathology.h"

namespace serpentine {

void add_pathology_models(Registry<Model>& all) {
  add_mamba_mil(all);
  add_mean_max_mil(all);
  add_ab_mil(all);
  add_ds_mil(all);
  add_clam(all);
  add_trans_mil(all);
  add_s4_mil(all);
}

void add_pathology_sources(Registry<DataSource>& all) { add_bag_source(all); }

void add_pathology_tasks(Registry<Task>& all) { add_bag_tasks(all); }

}  // namespace serpentine
