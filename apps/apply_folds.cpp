#include "apps/apply_folds.h"

#include <cstdio>
#include <fstream>
#include <iostream>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "apps/bag_results.h"
#include "apps/model_file.h"
#include "core/check.h"
#include "core/io/atomic_file.h"
#include "core/io/json_file.h"
#include "core/io/state_dict.h"
#include "core/train/checkpoint.h"
#include "core/train/trainer.h"
#include "pathology/bag_source.h"
#include "pathology/bag_task.h"
#include "pathology/statistics.h"

namespace serpentine {
namespace {

nlohmann::json finished_json(const std::string& path) {
  auto json = read_json(path);
  TORCH_CHECK(json.is_object(), path,
              ": is missing or damaged; has the cross-validation finished?");
  return json;
}

/// One fold's model with what it must know of its data.
struct Fold {
  std::shared_ptr<Model> model;
  nlohmann::json data, calibration;
  torch::Device device = torch::kCPU;

  Fold(const Packages& packages, const std::string& folder)
      : data(finished_json(folder + "/data.json")),
        calibration(finished_json(calibration_file(folder))) {
    RunPlan plan = read_plan(packages, yaml_of(folder));
    model = packages.models.build(plan.options.model);
    const std::string weights = weights_of_run(folder);
    const LoadReport fit = load_state_dict(*model, read_weights(weights), model->tolerated_keys());
    TORCH_CHECK(fit.ok(), weights, " does not fit the model of ", folder, "\n", fit.text());
    model->eval();
    device = pick_device(plan.options.fit.trainer.device);
    model->to(device);
  }

  /// Probabilities of the classes, or one risk.
  std::vector<double> read(torch::Tensor features, const torch::Tensor& coords) const {
    if (data.contains("mean")) {
      const auto vector = [&](const char* key) {
        return torch::tensor(data.at(key).get<std::vector<float>>());
      };
      features = (features - vector("mean")) / vector("scale");
    }
    Batch batch;
    batch.input = features;
    batch.coords = coords;
    const torch::Tensor logits =
        model->forward(batch.to(device)).to(torch::kCPU, torch::kDouble).flatten().contiguous();
    const std::vector<double> row(logits.const_data_ptr<double>(),
                                  logits.const_data_ptr<double>() + logits.numel());
    if (calibration.at("survival").get<bool>()) return {risk_of(row)};
    return softmax_of(row, calibration.at("temperature").get<double>());
  }
};

}  // namespace

int64_t apply_folds(const Packages& packages, const std::string& out, int64_t folds,
                    const std::string& table, const std::string& features, const std::string& to) {
  std::vector<Fold> all;
  for (int64_t k = 0; k < folds; ++k)
    all.emplace_back(packages, out + "/fold_" + std::to_string(k));
  const RunPlan plan = read_plan(packages, yaml_of(out + "/fold_0"));
  BagSetOptions options = plan.options.data.read_typed<BagSourceOptions>(BagSourceOptions{});
  options.path = table;
  options.features = features;
  options.labelled = options.keep = false;
  const BagSet set = read_bag_set(options);
  for (const auto& note : set.notes) std::cout << "note       " << note << "\n";

  const bool survival = all.front().calibration.at("survival").get<bool>();
  std::vector<std::string> columns = {"risk"};
  if (!survival) columns = all.front().data.at("classes").get<std::vector<std::string>>();
  std::string text = "name";
  for (const auto& column : columns) text += "," + column + "," + column + "_sd";
  text += "\n";
  const torch::NoGradGuard no_grad;
  for (const Bag& bag : set.bags) {
    const TileFeatures tiles = set.read(bag);
    std::vector<std::vector<double>> said;  // of each fold
    for (const Fold& fold : all) said.push_back(fold.read(tiles.features, tiles.coords));
    text += bag.name;
    for (size_t c = 0; c < columns.size(); ++c) {
      std::vector<double> values;
      for (const auto& row : said) values.push_back(row.at(c));
      char numbers[64];
      std::snprintf(numbers, sizeof numbers, ",%.6f,%.6f", mean_of(values), deviation_of(values));
      text += numbers;
    }
    text += "\n";
  }
  write_atomically(to, text);
  return static_cast<int64_t>(set.bags.size());
}

}  // namespace serpentine
