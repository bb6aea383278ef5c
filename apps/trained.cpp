#include "apps/trained.h"

#include <filesystem>

#include <torch/torch.h>

#include "apps/command.h"
#include "apps/model_file.h"
#include "core/check.h"
#include "core/io/atomic_file.h"
#include "core/io/json_file.h"
#include "core/io/state_dict.h"
#include "core/train/checkpoint.h"

namespace serpentine {

TrainedRun open_run(const Packages& packages, const std::string& folder) {
  if (!std::filesystem::is_directory(folder)) {
    throw UsageError("there is no run folder '" + folder + "'; `serpentine train` makes one");
  }
  TrainedRun run;
  run.folder = folder;
  const Config config = Config::load(yaml_of(folder)).child("model");
  run.model_type = config.type();
  run.model = packages.models.build(config);
  const std::string weights = weights_of_run(folder);
  const LoadReport fit =
      load_state_dict(*run.model, read_weights(weights), run.model->tolerated_keys());
  TORCH_CHECK(fit.ok(), weights, " does not fit the model of ", yaml_of(folder), "\n", fit.text());
  run.model->eval();

  const std::string path = folder + "/data.json";
  const auto json = read_json(path);
  TORCH_CHECK(!json.is_null(), path, ": cannot be read; it says how the run's data were scaled");
  TORCH_CHECK(!json.is_discarded(), path, ": is not JSON");
  run.schema = SeriesSchema::from_json(json);
  return run;
}

void make_folder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  TORCH_CHECK(!error, folder, ": the folder cannot be made: ", error.message());
}

}  // namespace serpentine
