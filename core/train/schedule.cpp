#include "core/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/check.h"

namespace serpentine {

void ScheduleOptions::fields(Fields& f) {
  f("type", type, "how the learning rate changes",
    {.choices = {"constant", "cosine", "linear", "poly", "step", "halving", "plateau"}});
  f("warmup_steps", warmup_steps, "steps of linear warm-up", {.least = 0});
  f("warmup_epochs", warmup_epochs, "epochs of linear warm-up, when warmup_steps is 0",
    {.least = 0});
  f("warmup_factor", warmup_factor, "rate at the first step as a part of the full one",
    {.least = 0, .most = 1});
  f("min_rate", min_rate, "learning rate below which no schedule goes", {.least = 0});
  f("power", power, "poly: power of the share of the run that is left", {.least = 0});
  f("by", by, "cosine, linear and poly: whether the rate moves every step or every epoch",
    {.choices = {"step", "epoch"}});
  f("factor", factor, "step and plateau: what each cut multiplies the rate with",
    {.least = 0, .most = 1});
  f("step_epochs", step_epochs, "step: epochs between cuts, when no milestones are given",
    {.least = 1});
  f("milestones", milestones, "step: epochs after which the rate is cut");
  f("hold_epochs", hold_epochs,
    "halving: epochs at the full rate before the first halving; 2 is what the published S-Mamba "
    "and iTransformer "
    "programs do, 1 halves after every epoch",
    {.least = 1});
  f("patience", patience, "plateau: evaluations without gain before a cut", {.least = 0});
}

Schedule::Schedule(ScheduleOptions options, double rate)
    : options_(std::move(options)), rate_(rate) {
  SERPENTINE_CHECK(rate_ > 0 || options_.min_rate == 0, "schedule", "min_rate ", options_.min_rate,
                   " needs a learning rate above 0");
}

void Schedule::plan(int64_t steps_per_epoch, int64_t total_steps) {
  steps_per_epoch_ = std::max<int64_t>(steps_per_epoch, 1);
  total_steps_ = std::max<int64_t>(total_steps, 1);
}

double Schedule::decayed(int64_t step, int64_t warmup) const {
  const int64_t epoch = step / steps_per_epoch_;
  if (options_.type == "cosine" || options_.type == "linear" || options_.type == "poly") {
    // a whole epoch of one rate, or a new rate every step
    const int64_t unit = options_.by == "epoch" ? steps_per_epoch_ : 1;
    const int64_t length = std::max<int64_t>((total_steps_ - warmup + unit - 1) / unit, 1);
    const double done =
        std::min(1.0, static_cast<double>((step - warmup) / unit) / static_cast<double>(length));
    const double floor = rate_ > 0 ? options_.min_rate / rate_ : 0;
    const double shape = options_.type == "cosine"   ? (1 + std::cos(std::numbers::pi * done)) / 2
                         : options_.type == "linear" ? 1 - done
                                                     : std::pow(1 - done, options_.power);
    return floor + (1 - floor) * shape;
  }
  if (options_.type == "step") {
    if (options_.milestones.empty()) return std::pow(options_.factor, epoch / options_.step_epochs);
    const auto passed = std::count_if(options_.milestones.begin(), options_.milestones.end(),
                                      [&](int64_t milestone) { return epoch >= milestone; });
    return std::pow(options_.factor, passed);
  }
  if (options_.type == "halving")
    return std::pow(0.5, std::max<int64_t>(0, epoch + 1 - options_.hold_epochs));
  if (options_.type == "plateau") return plateau_;
  return 1;
}

double Schedule::at(int64_t step) const {
  int64_t warmup = options_.warmup_steps;
  if (warmup == 0)
    warmup = std::llround(options_.warmup_epochs * static_cast<double>(steps_per_epoch_));
  if (step < warmup) {
    const double done = static_cast<double>(step + 1) / static_cast<double>(warmup);
    return options_.warmup_factor + (1 - options_.warmup_factor) * done;
  }
  const double floor = rate_ > 0 ? options_.min_rate / rate_ : 0;
  return std::max(floor, decayed(step, warmup));
}

void Schedule::after_evaluation(bool gained) {
  without_gain_ = gained ? 0 : without_gain_ + 1;
  if (options_.type != "plateau" || without_gain_ <= options_.patience) return;
  plateau_ *= options_.factor;
  without_gain_ = 0;
}

nlohmann::json Schedule::state() const {
  return {{"plateau", plateau_}, {"without_gain", without_gain_}};
}

void Schedule::set_state(const nlohmann::json& state) {
  plateau_ = state.at("plateau").get<double>();
  without_gain_ = state.at("without_gain").get<int64_t>();
}

}  // namespace serpentine
