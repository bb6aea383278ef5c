#include "core/train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace serpentine {

namespace {

constexpr int64_t kEpoch = 10;  // steps

Schedule planned(ScheduleOptions options, double rate = 1.0) {
  Schedule schedule(options, rate);
  schedule.plan(kEpoch, 10 * kEpoch);
  return schedule;
}

TEST(Schedule, ConstantStays) {
  const Schedule schedule = planned({});
  for (const int64_t step : {0, 5, 99, 500}) {
    EXPECT_EQ(schedule.at(step), 1);
  }
}

TEST(Schedule, HalvingIsThePublishedType1) {
  ScheduleOptions options;
  options.type = "halving";
  // lr * 0.5 ** (e - 1) is set after epoch e = 1, 2, ...: the first two epochs have the full rate
  const Schedule published = planned(options);
  const double expected[] = {1, 1, 0.5, 0.25, 0.125};
  for (int64_t epoch = 0; epoch < 5; ++epoch) {
    EXPECT_EQ(published.at(epoch * kEpoch), expected[epoch]);
    EXPECT_EQ(published.at(epoch * kEpoch + kEpoch - 1), expected[epoch]);
  }
  options.hold_epochs = 1;
  const Schedule every = planned(options);
  for (int64_t epoch = 0; epoch < 5; ++epoch) {
    EXPECT_EQ(every.at(epoch * kEpoch), std::pow(0.5, epoch));
  }
}

TEST(Schedule, CosineReachesItsFloor) {
  ScheduleOptions options;
  options.type = "cosine";
  options.min_rate = 0.02;
  const Schedule schedule = planned(options, 0.2);  // the floor is a tenth
  EXPECT_DOUBLE_EQ(schedule.at(0), 1);
  EXPECT_NEAR(schedule.at(50), 0.1 + 0.9 / 2, 1e-12);
  EXPECT_NEAR(schedule.at(100), 0.1, 1e-12);
  EXPECT_NEAR(schedule.at(1000), 0.1, 1e-12);
  options.by = "epoch";
  const Schedule stairs = planned(options, 0.2);
  EXPECT_EQ(stairs.at(11), stairs.at(19));
  EXPECT_NEAR(stairs.at(10), 0.1 + 0.9 * (1 + std::cos(M_PI / 10)) / 2, 1e-12);
}

TEST(Schedule, PolyIsAPowerOfWhatIsLeft) {
  ScheduleOptions options;
  options.type = "poly";
  options.power = 0.9;
  const Schedule schedule = planned(options);
  for (const int64_t step : {0, 1, 50, 99}) {
    EXPECT_DOUBLE_EQ(schedule.at(step), std::pow(1 - static_cast<double>(step) / 100, 0.9));
  }
  EXPECT_EQ(schedule.at(100), 0);
  options.by = "epoch";
  options.min_rate = 0.1;
  options.warmup_epochs = 2;
  const Schedule stairs = planned(options);
  EXPECT_DOUBLE_EQ(stairs.at(19), 1);
  EXPECT_DOUBLE_EQ(stairs.at(20), 1);
  EXPECT_DOUBLE_EQ(stairs.at(65), 0.1 + 0.9 * std::pow(0.5, 0.9));
  EXPECT_DOUBLE_EQ(stairs.at(100), 0.1);
}

TEST(Schedule, WarmUpIsLinearThenTheCurveStarts) {
  ScheduleOptions options;
  options.type = "linear";
  options.warmup_steps = 4;
  const Schedule steps = planned(options);
  EXPECT_DOUBLE_EQ(steps.at(0), 0.25);
  EXPECT_DOUBLE_EQ(steps.at(3), 1);
  EXPECT_DOUBLE_EQ(steps.at(4), 1);
  EXPECT_DOUBLE_EQ(steps.at(52), 0.5);
  options.warmup_steps = 0;
  options.warmup_epochs = 1.5;
  options.warmup_factor = 0.1;
  const Schedule epochs = planned(options);
  EXPECT_DOUBLE_EQ(epochs.at(2), 0.1 + 0.9 * 3 / 15);
  EXPECT_DOUBLE_EQ(epochs.at(14), 1);
}

TEST(Schedule, StepsAtMilestonesOrEvery) {
  ScheduleOptions options;
  options.type = "step";
  options.step_epochs = 3;
  const Schedule every = planned(options);
  EXPECT_DOUBLE_EQ(every.at(29), 1);
  EXPECT_DOUBLE_EQ(every.at(30), 0.1);
  EXPECT_NEAR(every.at(60), 0.01, 1e-15);
  options.milestones = {2, 3};
  const Schedule given = planned(options);
  EXPECT_DOUBLE_EQ(given.at(19), 1);
  EXPECT_DOUBLE_EQ(given.at(20), 0.1);
  EXPECT_NEAR(given.at(90), 0.01, 1e-15);
}

TEST(Schedule, PlateauCutsAfterPatienceAndIsRestored) {
  ScheduleOptions options;
  options.type = "plateau";
  options.patience = 1;
  options.factor = 0.5;
  options.min_rate = 0.2;
  Schedule schedule = planned(options);
  schedule.after_evaluation(false);
  EXPECT_EQ(schedule.at(0), 1);
  Schedule copy = planned(options);
  copy.set_state(schedule.state());
  for (Schedule* one : {&schedule, &copy}) {
    one->after_evaluation(false);
    EXPECT_EQ(one->at(0), 0.5);
    one->after_evaluation(false);
    one->after_evaluation(true);
    one->after_evaluation(false);
    EXPECT_EQ(one->at(0), 0.5) << "a gain starts the count again";
    for (int i = 0; i < 6; ++i) one->after_evaluation(false);
    EXPECT_EQ(one->at(0), 0.2) << "min_rate";
  }
}

}  // namespace

}  // namespace serpentine
