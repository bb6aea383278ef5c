#include "apps/bag_results.h"

#include <algorithm>
#include <iostream>
#include <optional>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/io/atomic_file.h"
#include "core/io/csv.h"
#include "pathology/cross_validation.h"
#include "pathology/statistics.h"

namespace serpentine {
namespace {

/// Nothing where the bags determine no temperature: there is none, all are classified rightly (any
/// sharper answer is better), or the fit ends on its bound.
std::optional<double> determined_temperature(const BagPredictions& validation) {
  bool all_right = true;
  for (size_t i = 0; i < validation.logits.size(); ++i) {
    const auto& row = validation.logits[i];
    all_right = all_right &&
                std::max_element(row.begin(), row.end()) - row.begin() == validation.targets[i];
  }
  if (all_right) return std::nullopt;
  const double found = fit_temperature(validation.logits, validation.targets);
  if (found < 1.002 * kLeastTemperature || found > 0.995 * kMostTemperature) return std::nullopt;
  return found;
}

}  // namespace

std::string calibration_file(const std::string& folder) { return folder + "/calibration.json"; }

std::string write_left_out(const RunParts& parts, const std::string& folder) {
  const auto source = std::dynamic_pointer_cast<BagSource>(parts.source);
  if (!source || source->set().left_out.empty()) return "";
  const auto& all = source->set().left_out;
  std::string text = "name,reason\n";
  for (const auto& [name, why] : all) text += csv_cell(name) + "," + csv_cell(why) + "\n";
  write_atomically(folder + "/left_out.csv", text);
  return std::to_string(all.size()) + (all.size() == 1 ? " bag is" : " bags are") +
         " left out; why stands in " + folder + "/left_out.csv";
}

void write_bag_results(const RunParts& parts, torch::Device device, const std::string& folder) {
  const auto source = std::dynamic_pointer_cast<BagSource>(parts.source);
  const auto model = std::dynamic_pointer_cast<BagModel>(parts.model);
  if (!source || !model) return;
  const int64_t fold = source->fold();
  const bool survival = source->set().survival;
  const auto said = [&](Part part) { return predict_bags(*model, *source->bags(part), device); };
  const NamedPredictions validation = said(Part::kValidation), test = said(Part::kTest);
  const auto fitted = survival ? std::nullopt : determined_temperature(validation.all);
  const double temperature = fitted.value_or(1);
  if (!survival && !fitted) {
    std::cout << "note       probabilities are not calibrated (temperature 1): "
              << (validation.names.empty() ? std::string("there are no validation bags")
                                           : "the " + std::to_string(validation.names.size()) +
                                                 " validation bags determine no temperature")
              << std::endl;
  }
  write_predictions(folder + "/validation_predictions.csv", validation, survival, temperature);
  write_predictions(folder + "/test_predictions.csv", test, survival, temperature);
  write_split(folder, fold, source->split(), source->infos(), source->set().classes);
  const nlohmann::json mark = {{"temperature", temperature},
                               {"calibrated", fitted.has_value()},
                               {"survival", survival},
                               {"fold", fold}};
  write_atomically(calibration_file(folder), mark.dump(1) + "\n");
}

}  // namespace serpentine
