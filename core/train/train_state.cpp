#include "core/train/train_state.h"

#include <cstdio>
#include <cstdlib>
#include <string>

#include <nlohmann/json.hpp>

namespace serpentine {

namespace {

/// JSON has no infinity, and decimal digits round.
std::string hexadecimal(double value) {
  char text[64];
  std::snprintf(text, sizeof(text), "%a", value);
  return text;
}

/// Calls `visit(name, field)` for every field that outlives a run.
template <class State, class Visit>
void each_field(State& state, const Visit& visit) {
  visit("epoch", state.epoch);
  visit("step", state.step);
  visit("batch_in_epoch", state.batch_in_epoch);
  visit("learning_rate", state.learning_rate);
  visit("loss", state.loss);
  visit("epoch_loss", state.epoch_loss);
  visit("logged_step", state.logged_step);
  visit("evaluated_step", state.evaluated_step);
  visit("best", state.best);
  visit("best_epoch", state.best_epoch);
  visit("best_step", state.best_step);
  visit("evaluations_without_gain", state.evaluations_without_gain);
  visit("early_stopped", state.early_stopped);
}

struct Write {
  nlohmann::json& json;
  void operator()(const char* name, double value) const { json[name] = hexadecimal(value); }
  void operator()(const char* name, int64_t value) const { json[name] = value; }
  void operator()(const char* name, bool value) const { json[name] = value; }
};

struct Read {
  const nlohmann::json& json;
  void operator()(const char* name, double& value) const {
    value = std::strtod(json.at(name).get<std::string>().c_str(), nullptr);
  }
  void operator()(const char* name, int64_t& value) const { value = json.at(name).get<int64_t>(); }
  void operator()(const char* name, bool& value) const { value = json.at(name).get<bool>(); }
};

}  // namespace

nlohmann::json to_json(const TrainState& state) {
  nlohmann::json json = nlohmann::json::object();
  each_field(state, Write{json});
  return json;
}

TrainState train_state_from_json(const nlohmann::json& json) {
  TrainState state;
  each_field(state, Read{json});
  return state;
}

}  // namespace serpentine
