#include "scans/serialization.h"

#include <nlohmann/json.hpp>

namespace serpentine {

void add_serializations(Registry<Serialization>& all) {
  add_raster(all);
  add_cross(all);
  add_zigzag(all);
  add_continuous(all);
  add_hilbert(all);
  add_morton(all);
  add_inter_slice(all);
  add_tri_orientated(all);
  add_atrous(all);
  add_window(all);
  add_lattice(all);
  add_traverse(all);
  add_identity(all);
  add_reorder(all);
  add_random(all);
  add_learned(all);
  add_variate(all);
  add_reversed(all);
  add_bidirectional(all);
  add_shuffle(all);
  add_class_token(all);
  add_pieces(all);
  add_shared(all);
  add_one_by_one(all);
  add_stack(all);
  add_per_layer(all);
}

std::shared_ptr<Serialization> build_serialization(const Registry<Serialization>& all,
                                                   const Config& config) {
  Config chosen = config;
  if (!chosen.has("type")) chosen.set_default("type", "identity");
  return all.build(chosen);
}

std::vector<std::shared_ptr<Serialization>> build_serializations(
    const Registry<Serialization>& all, const std::vector<Config>& configs) {
  if (configs.empty()) return {build_serialization(all, Config())};
  std::vector<std::shared_ptr<Serialization>> built;
  for (const Config& config : configs) built.push_back(build_serialization(all, config));
  return built;
}

}  // namespace serpentine
