#include "scans/serialization.h"

#include <nlohmann/json.hpp>

namespace serpentine {

void add_serializations(Registry<Serialization>& all) {
  add_identity(all);
  add_reversed(all);
  add_bidirectional(all);
}

std::shared_ptr<Serialization> build_serialization(const Registry<Serialization>& all,
                                                   const Config& config) {
  Config chosen = config;
  if (!chosen.has("type")) chosen.set_default("type", "identity");
  return all.build(chosen);
}

}  // namespace serpentine
