// Comparison of a model with tensors that the original program recorded.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "apps/packages.h"
#include "core/io/state_dict.h"

namespace serpentine {

/// A model with the weights to be proved, which can be built again with other options.
class ParityModel {
 public:
  /// `model`: a run folder, a YAML file, or a config.json of the reference. `weights` may be empty
  /// for a run. Throws when the weights do not fit, with what is missing and what is left over.
  ParityModel(const Packages& packages, std::string model, std::string weights,
              std::vector<std::string> overrides);

  /// In evaluation mode. `options`: further overrides, as "model.use_norm=false".
  std::shared_ptr<Model> build(const std::vector<std::string>& options = {}) const;

  /// The first examples of the run's test part, as tensors `input` and `input.NAME`.
  StateDict example_inputs() const;

  std::string report;  // what of the weights was knowingly left over

 private:
  const Packages& packages_;
  std::string model_;
  std::vector<std::string> overrides_;
  StateDict weights_;
};

enum class ParityVerdict { kClose, kBeyond, kNotCompared };

struct ParityRow {
  std::string name;
  double max_error = 0, rms_error = 0;  // of the difference, over the largest magnitude recorded
  double tolerance = 0;
  ParityVerdict verdict = ParityVerdict::kNotCompared;
  std::string note;
};

/// What a recording's model reads: `input` and the named inputs. Throws without `input`.
Batch recorded_batch(const StateDict& recorded, const std::string& file);

/// One row a recorded tensor that is no input. `tolerance` 0: 2e-5, gradients 1e-4. `file` is for
/// errors.
std::vector<ParityRow> compare_parity(const ParityModel& model, const StateDict& recorded,
                                      double tolerance, const std::string& file);

/// The inputs (and cotangent) of `recorded` with our output, trace and, for a cotangent, gradients.
/// `with_gradients` makes a cotangent where there is none.
StateDict record_parity(const ParityModel& model, const StateDict& recorded,
                        const std::string& file, bool with_gradients);

}  // namespace serpentine
