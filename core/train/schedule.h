// How the learning rate changes over a training run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/config.h"

namespace serpentine {

struct ScheduleOptions {
  std::string type = "constant";
  int64_t warmup_steps = 0;
  double warmup_epochs = 0;
  double warmup_factor = 0;  // the rate at step 0 as a part of the full one
  double min_rate = 0;       // no schedule goes below
  std::string by = "step";   // cosine and linear move every step or every epoch
  double power = 0.9;        // poly
  double factor = 0.1;       // step, plateau
  int64_t step_epochs = 30;  // step, when no milestones are given
  std::vector<int64_t> milestones;
  int64_t hold_epochs = 2;  // halving
  int64_t patience = 10;    // plateau
  void fields(Fields& f);
};

/// A multiplier of every parameter group's own rate; a function of the step, except for plateau.
class Schedule {
 public:
  /// `rate`: the full learning rate, with which min_rate is compared.
  Schedule(ScheduleOptions options, double rate);

  /// Learns the length of the run, both in optimiser steps.
  void plan(int64_t steps_per_epoch, int64_t total_steps);
  /// The multiplier for the step that comes after `step` finished ones.
  double at(int64_t step) const;
  /// Tells plateau whether the monitored value gained.
  void after_evaluation(bool gained);

  nlohmann::json state() const;
  void set_state(const nlohmann::json& state);

 private:
  double decayed(int64_t step, int64_t warmup) const;

  ScheduleOptions options_;
  double rate_;
  int64_t steps_per_epoch_ = 1, total_steps_ = 1;
  double plateau_ = 1;  // product of the cuts so far
  int64_t without_gain_ = 0;
};

}  // namespace serpentine
