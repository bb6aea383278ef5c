// Models from whatever describes one: a run folder, a YAML file, a config.json of the reference.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "apps/packages.h"
#include "apps/run.h"

namespace serpentine {

/// The YAML behind a run folder; any other path as it is.
std::string yaml_of(const std::string& run_or_yaml);

/// The best weights of a run folder, or "".
std::string weights_of_run(const std::string& run_or_yaml);

/// A new model. Of a YAML only `model:` is read, and `data:` when the model does not say its sizes.
std::shared_ptr<Model> build_model(const Packages& packages, const std::string& path,
                                   const std::vector<std::string>& overrides);

}  // namespace serpentine
