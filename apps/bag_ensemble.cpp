#include "apps/bag_ensemble.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "apps/bag_results.h"
#include "apps/command.h"
#include "apps/model_file.h"
#include "core/check.h"
#include "core/io/json_file.h"
#include "core/io/state_dict.h"
#include "core/train/checkpoint.h"
#include "core/train/trainer.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;

/// `features` of the run's data section, from where the program stands or beside the YAML.
std::string features_of(const std::string& folder) {
  std::ifstream file(folder + "/config.yaml");
  std::string line;
  bool in_data = false;
  while (std::getline(file, line)) {
    if (!line.empty() && line[0] != ' ') in_data = line.starts_with("data:");
    const auto at = line.find("features:");
    if (!in_data || at == std::string::npos || line.find_first_not_of(' ') != at) continue;
    std::string value = line.substr(at + 9);
    const auto comment = value.find(" #");
    if (comment != std::string::npos) value.resize(comment);
    std::erase_if(value, [](char c) { return c == '"' || c == '\''; });
    value.erase(0, value.find_first_not_of(' '));
    while (!value.empty() && value.back() == ' ') value.pop_back();
    return value;
  }
  return "";
}

/// The negated sum of the survival over the time bins, or the one logit. [N, C] to [N].
torch::Tensor risk_of(const torch::Tensor& logits) {
  if (logits.size(1) == 1) return logits.select(1, 0);
  return -(1 - torch::sigmoid(logits)).cumprod(1).sum(1);
}

/// One number a tile, undefined when the model has none of the kind. `tiles`: what the model would
/// say of each tile alone, the risk or the probability of class `label`; else what it attended to.
torch::Tensor scores_of(const BagOutput& said, int64_t label, bool survival, bool tiles) {
  if (!tiles) {
    if (!said.attention.defined()) return {};
    const auto all = said.attention.detach().to(torch::kCPU, torch::kDouble);
    return torch::softmax(all.select(1, all.size(1) > label ? label : 0), 0);
  }
  if (!said.instance_logits.defined()) return {};
  const auto all = said.instance_logits.detach().to(torch::kCPU, torch::kDouble);
  if (survival) return risk_of(all);
  if (all.size(1) > 1) return torch::softmax(all, 1).select(1, std::min(label, all.size(1) - 1));
  const auto second = torch::sigmoid(all.select(1, 0));
  return label == 0 ? 1 - second : second;
}

}  // namespace

BagEnsemble::BagEnsemble(const std::string& run, const std::string& device, std::string heat)
    : run_(run), heat_(std::move(heat)), device_(pick_device(device)) {
  if (!fs::is_directory(run)) {
    throw UsageError("there is no run folder '" + run + "'; `serpentine train` makes one");
  }
  std::vector<std::string> folders = finished_folds();
  if (folders.empty()) folders.push_back(run);
  identity_ = {{"run", fs::weakly_canonical(run).string()}};
  for (const auto& folder : folders) add(folder);
}

/// Empty for a run without folds.
std::vector<std::string> BagEnsemble::finished_folds() {
  const auto record = read_json(run_ + "/crossval.json");
  int64_t folds = record.is_object() ? record.value("folds", int64_t{0}) : 0;
  while (fs::exists(run_ + "/fold_" + std::to_string(folds))) ++folds;
  std::vector<std::string> finished;
  std::string missing;
  for (int64_t fold = 0; fold < folds; ++fold) {
    const std::string folder = run_ + "/fold_" + std::to_string(fold);
    if (fs::exists(calibration_file(folder))) {
      finished.push_back(folder);
    } else {
      missing += (missing.empty() ? "" : ", ") + std::to_string(fold);
    }
  }
  if (folds > 0 && finished.empty()) {
    throw UsageError(run_ + ": none of its " + std::to_string(folds) +
                     " folds is finished; the same `serpentine crossval` goes on with them");
  }
  if (!missing.empty()) {
    note_ = "not finished: fold " + missing + " of " + std::to_string(folds) + "; " +
            std::to_string(finished.size()) +
            (finished.size() == 1 ? " fold answers" : " folds are averaged");
  }
  return finished;
}

void BagEnsemble::add(const std::string& folder) {
  const Config config = Config::load(yaml_of(folder)).child("model");
  type_ = config.type();
  Member member;
  member.model = std::dynamic_pointer_cast<BagModel>(all_packages().models.build(config));
  if (!member.model) {
    throw UsageError(folder + ": its model '" + type_ + "' does not read bags of tiles");
  }
  const std::string weights = weights_of_run(folder);
  const StateDict state = read_weights(weights);
  const LoadReport fit = load_state_dict(*member.model, state, member.model->tolerated_keys());
  TORCH_CHECK(fit.ok(), weights, " does not fit the model of ", yaml_of(folder), "\n", fit.text());
  member.model->eval();
  member.model->to(device_);
  const auto data = read_json(folder + "/data.json");
  TORCH_CHECK(data.is_object() && data.value("kind", "") == "bags", folder,
              "/data.json: does not describe bags");
  width_ = data.at("features");
  classes_ = data.at("classes").get<std::vector<std::string>>();
  survival_ = data.contains("time_bins");
  if (data.contains("mean")) {
    const auto numbers = [&](const char* key) {
      return torch::tensor(data.at(key).get<std::vector<float>>());
    };
    member.mean = numbers("mean");
    member.scale = numbers("scale");
  }
  const auto mark = read_json(folder + "/calibration.json");
  if (mark.is_object()) {
    member.temperature = mark.value("temperature", 1.0);
    calibrated_ = calibrated_ && mark.value("calibrated", true);
  } else {
    calibrated_ = false;
  }
  if (features_.empty()) features_ = features_of(folder);
  identity_["model"] = type_;
  identity_["weights"].push_back({{"file", fs::weakly_canonical(weights).string()},
                                  {"checksum", checksum(state)},
                                  {"temperature", member.temperature}});
  members_.push_back(std::move(member));
}

void BagEnsemble::check_width(int64_t width, const std::string& encoder) const {
  TORCH_CHECK(width == width_, run_, ": its model reads features of width ", width_,
              ", but the encoder ", encoder, " gives ", width);
}

void BagEnsemble::draw_heat(const std::vector<BagOutput>& said, SlidePrediction& prediction) const {
  const bool attends = std::all_of(said.begin(), said.end(),
                                   [](const auto& one) { return one.attention.defined(); });
  TORCH_CHECK(heat_ != "attention" || attends, run_, ": ", type_,
              " attends to no tiles; --heat tile shows what it says of each tile alone");
  const bool tiles = heat_ == "tile" || (heat_ == "auto" && (survival_ || !attends));
  for (const auto& output : said) {
    const auto scores = scores_of(output, prediction.label, survival_, tiles);
    if (!scores.defined()) {
      prediction.scores = torch::Tensor();
      return;  // no heat from a model that says nothing of tiles
    }
    prediction.scores = prediction.scores.defined() ? prediction.scores + scores : scores;
  }
  prediction.scores = prediction.scores / static_cast<double>(said.size());
  if (!tiles) {
    prediction.meaning = {"attention", "attention of the model, summing to 1 over the slide"};
  } else if (survival_) {
    prediction.meaning = {"risk", "risk that the model would give each tile alone"};
  } else {
    prediction.meaning = {
        "probability", "probability of " +
                           prediction.probabilities[static_cast<size_t>(prediction.label)].first +
                           " that the model would give each tile alone, not calibrated"};
  }
}

SlidePrediction BagEnsemble::predict(const torch::Tensor& features, const torch::Tensor& coords) {
  const torch::NoGradGuard no_grad;
  SlidePrediction prediction;
  prediction.model = run_ + " (" + type_ + ")";
  prediction.models = static_cast<int64_t>(members_.size());
  prediction.calibrated = calibrated_ && !survival_;
  std::vector<BagOutput> said;
  torch::Tensor sum;
  for (const Member& member : members_) {
    Batch batch;
    batch.input = member.mean.defined() ? (features - member.mean) / member.scale : features;
    batch.coords = coords.to(torch::kFloat);
    batch.offsets = torch::tensor({int64_t{0}, features.size(0)}, torch::kInt);
    batch = batch.to(device_);
    batch.offsets = batch.offsets.to(torch::kCPU);
    said.push_back(member.model->read(batch, false));
    const auto logits = said.back().logits.detach().to(torch::kCPU, torch::kDouble)[0];
    torch::Tensor value;
    if (survival_) {
      value = risk_of(logits.unsqueeze(0));
    } else if (logits.numel() == 1) {
      const auto p = torch::sigmoid(logits / member.temperature);
      value = torch::cat({1 - p, p});
    } else {
      value = torch::softmax(logits / member.temperature, 0);
    }
    sum = sum.defined() ? sum + value : value;
    prediction.temperatures.push_back(member.temperature);
  }
  const auto mean = sum / static_cast<double>(members_.size());
  if (survival_) {
    prediction.risk = mean[0].item<double>();
  } else {
    for (int64_t c = 0; c < mean.numel(); ++c) {
      const auto at = static_cast<size_t>(c);
      prediction.probabilities.emplace_back(
          at < classes_.size() ? classes_[at] : "class " + std::to_string(c),
          mean[c].item<double>());
    }
    prediction.label = mean.argmax().item<int64_t>();
  }
  draw_heat(said, prediction);
  return prediction;
}

}  // namespace serpentine
