#include "apps/bag_results.h"

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/io/atomic_file.h"
#include "pathology/cross_validation.h"
#include "pathology/statistics.h"

namespace serpentine {

std::string calibration_file(const std::string& folder) { return folder + "/calibration.json"; }

void write_bag_results(const RunParts& parts, torch::Device device, const std::string& folder) {
  const auto source = std::dynamic_pointer_cast<BagSource>(parts.source);
  const auto model = std::dynamic_pointer_cast<BagModel>(parts.model);
  if (!source || !model) return;
  const int64_t fold = source->fold();
  const bool survival = source->set().survival;
  const auto said = [&](Part part) { return predict_bags(*model, *source->bags(part), device); };
  const NamedPredictions validation = said(Part::kValidation), test = said(Part::kTest);
  double temperature = 1;
  if (!survival && !validation.names.empty())
    temperature = fit_temperature(validation.all.logits, validation.all.targets);
  write_predictions(folder + "/validation_predictions.csv", validation, survival, temperature);
  write_predictions(folder + "/test_predictions.csv", test, survival, temperature);
  write_split(folder, fold, source->split(), source->infos(), source->set().classes);
  const nlohmann::json mark = {
      {"temperature", temperature}, {"survival", survival}, {"fold", fold}};
  write_atomically(calibration_file(folder), mark.dump(1) + "\n");
}

}  // namespace serpentine
