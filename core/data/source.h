// Where a run's examples come from: a source that knows its training, validation and test parts.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/config.h"
#include "core/data/dataset.h"

namespace serpentine {

enum class Part { kTrain, kValidation, kTest };

class DataSource {
 public:
  virtual ~DataSource() = default;

  /// The examples of one part; may be empty for validation and test.
  virtual std::shared_ptr<const Dataset> part(Part which) const = 0;

  /// Gives keys that the user left out of `model` the values that the data and the task imply.
  virtual void fill_model(Config& model, const Config& task) = 0;

  /// What a trained model must know of its data (scaling, columns); a run keeps it beside the
  /// weights. Complete after `fill_model`.
  virtual nlohmann::json description() const = 0;

  /// Sentences that a user should see once, such as "column 'x' is constant".
  virtual std::vector<std::string> notes() const { return {}; }
};

}  // namespace serpentine
