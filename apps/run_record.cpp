#include "apps/run_record.h"

#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>

#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>

namespace serpentine {
namespace {

// names in the tables; TensorBoard groups by what stands before the slash
constexpr const char* kLoss = "train/loss";
constexpr const char* kEpochLoss = "train/epoch_loss";
constexpr const char* kRate = "train/learning_rate";
constexpr const char* kEpoch = "epoch";
const std::string kValidation = "validation/";

}  // namespace

RunRecord::RunRecord(std::string folder, const TrainerOptions& options, bool resumed)
    : path_(std::move(folder)), options_(options), resumed_(resumed) {}

void RunRecord::start(int64_t step, int64_t total) {
  folder_.emplace(RunFolder::open(path_, resumed_ ? std::optional<int64_t>(step) : std::nullopt));
  ProgressOptions style;
  style.out = stdout;
  progress_ = std::make_unique<Progress>("training", total, step, style);
}

void RunRecord::log(int64_t step, const std::map<std::string, double>& values) {
  if (failed_) return;
  try {
    folder_->log(step, values);
  } catch (const c10::Error& error) {
    failed_ = true;
    std::cerr << error.what_without_backtrace() << "; training goes on without its log"
              << std::endl;
  }
}

std::string RunRecord::note(const TrainState& state) const {
  char text[96];
  const int64_t epoch = std::min(state.epoch + 1, options_.epochs);
  std::snprintf(text, sizeof text, "epoch %lld of %lld, loss %.4g", static_cast<long long>(epoch),
                static_cast<long long>(options_.epochs), state.epoch_loss);
  return text;
}

void RunRecord::after_step(TrainState& state) {
  if (!progress_) start(state.step - 1, state.total_steps);
  progress_->update(state.step, note(state));
  if (state.logged_step != state.step || logged_step_ == state.step) return;
  logged_step_ = state.step;
  log(state.step, {{kLoss, state.loss}, {kRate, state.learning_rate}});
}

void RunRecord::after_evaluation(TrainState& state, const std::map<std::string, double>& metrics) {
  if (!progress_) start(state.step, state.total_steps);
  std::map<std::string, double> values = {
      {kEpoch, static_cast<double>(state.step) /
                   static_cast<double>(std::max<int64_t>(state.steps_per_epoch, 1))},
      {kEpochLoss, state.epoch_loss}};
  std::string text;
  for (const auto& [name, value] : metrics) {
    values[kValidation + name] = value;
    char number[64];
    std::snprintf(number, sizeof number, "  %s %.4g", name.c_str(), value);
    text += number;
  }
  log(state.step, values);

  // ends a live line, so that evaluations stay on the screen
  progress_ = nullptr;
  std::printf("epoch %.4g of %lld  loss %.4g  validation%s%s\n", values[kEpoch],
              static_cast<long long>(options_.epochs), state.epoch_loss, text.c_str(),
              state.best_step == state.step ? "  (best)" : "");
  std::fflush(stdout);
  ProgressOptions style;
  style.out = stdout;
  progress_ = std::make_unique<Progress>("training", state.total_steps, state.step, style);
}

void RunRecord::after_fit(TrainState& state) {
  progress_ = nullptr;
  if (!state.early_stopped) return;
  std::printf("stopped early: no gain in %lld evaluations\n",
              static_cast<long long>(options_.patience));
  std::fflush(stdout);
}

std::vector<RecordedEvaluation> read_evaluations(const std::string& folder) {
  std::vector<RecordedEvaluation> all;
  std::ifstream file(folder + "/metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains(kEpochLoss)) continue;
    const auto number = [&](const auto& value) {
      return value.is_number() ? value.template get<double>() : NAN;
    };
    RecordedEvaluation evaluation{number(json.at(kEpoch)), number(json.at(kEpochLoss)), {}};
    for (const auto& [name, value] : json.items()) {
      if (name.rfind(kValidation, 0) == 0)
        evaluation.metrics[name.substr(kValidation.size())] = number(value);
    }
    all.push_back(std::move(evaluation));
  }
  return all;
}

}  // namespace serpentine
