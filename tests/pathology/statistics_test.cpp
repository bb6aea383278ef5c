#include "pathology/statistics.h"

#include <cmath>
#include <random>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "core/io/files.h"
#include "pathology/cross_validation.h"
#include "pathology/survival.h"

namespace serpentine {
namespace {

TEST(Statistics, AreaIsTheShareOfOrderedPairs) {
  EXPECT_DOUBLE_EQ(area_under_roc({0.1, 0.4, 0.35, 0.8}, {false, false, true, true}), 0.75);
  EXPECT_DOUBLE_EQ(area_under_roc({1, 1, 1}, {true, false, true}), 0.5);
  EXPECT_TRUE(std::isnan(area_under_roc({1, 2}, {true, true})));
}

TEST(Statistics, ConcordanceCountsComparablePairs) {
  // pairs with an earlier event: (1,2) (1,3) (1,4) (3,4); risk ranks them right but (1,3), a tie
  EXPECT_DOUBLE_EQ(concordance({1, 2, 3, 4}, {true, false, true, true}, {5, 1, 5, 2}), 3.5 / 4);
  EXPECT_DOUBLE_EQ(concordance({1, 1}, {true, false}, {1, 2}), 0);  // the censored one lives on
  EXPECT_TRUE(std::isnan(concordance({1, 2}, {false, false}, {1, 2})));
}

TEST(Statistics, KaplanMeierAndLogRankOfFreireich) {
  // Freireich et al. 1963, remission of leukaemia (weeks): the classic example of both
  const std::vector<double> treated = {6,  6,  6,  6,  7,  9,  10, 10, 11, 13, 16,
                                       17, 19, 20, 22, 23, 25, 32, 32, 34, 35};
  const std::vector<bool> treated_events = {true,  true,  true,  false, true,  false, true,
                                            false, false, true,  true,  false, false, false,
                                            true,  true,  false, false, false, false, false};
  const std::vector<double> placebo = {1, 1, 2,  2,  3,  4,  4,  5,  5,  8, 8,
                                       8, 8, 11, 11, 12, 12, 15, 17, 22, 23};
  const SurvivalCurve curve = kaplan_meier(treated, treated_events);
  EXPECT_NEAR(curve.alive[1], 0.857, 5e-4);  // week 6
  EXPECT_NEAR(curve.alive[7], 0.448, 5e-4);  // week 23
  std::vector<double> times = treated;
  std::vector<bool> events = treated_events, second(treated.size(), false);
  times.insert(times.end(), placebo.begin(), placebo.end());
  events.insert(events.end(), placebo.size(), true);
  second.insert(second.end(), placebo.size(), true);
  const LogRank test = log_rank(times, events, second);
  EXPECT_NEAR(test.chi_square, 16.79, 0.01);
  EXPECT_LT(test.p, 1e-4);
}

TEST(Statistics, BootstrapCoversTheMean) {
  std::mt19937_64 random(1);
  std::normal_distribution<double> normal(3, 1);
  std::vector<double> values(200);
  for (double& value : values) value = normal(random);
  const auto mean = [&](const std::vector<int64_t>& rows) {
    double sum = 0;
    for (const int64_t row : rows) sum += values[static_cast<size_t>(row)];
    return sum / static_cast<double>(rows.size());
  };
  const Interval interval = bootstrap(200, 2000, 5, mean);
  EXPECT_NEAR(interval.high - interval.low, 2 * 1.96 * deviation_of(values) / std::sqrt(200), 0.03);
  EXPECT_LT(interval.low, mean_of(values));
  EXPECT_EQ(bootstrap(200, 2000, 5, mean).low, interval.low);
}

TEST(Statistics, TemperatureUndoesScaledLogits) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<std::vector<double>> logits;
  std::vector<int64_t> targets;
  for (int i = 0; i < 4000; ++i) {
    const double logit = 4 * uniform(random) - 2;
    targets.push_back(uniform(random) < 1 / (1 + std::exp(-logit)) ? 1 : 0);
    logits.push_back({0, 3 * logit});  // three times too sure
  }
  const double temperature = fit_temperature(logits, targets);
  EXPECT_NEAR(temperature, 3, 0.25);
  std::vector<std::vector<double>> raw, calibrated;
  for (const auto& row : logits) {
    raw.push_back(softmax_of(row));
    calibrated.push_back(softmax_of(row, temperature));
  }
  EXPECT_LT(calibration_error(calibrated, targets), 0.03);
  EXPECT_GT(calibration_error(raw, targets), 0.1);
}

TEST(Survival, CoxLossIsThePartialLikelihood) {
  const auto risk = torch::tensor({0.5, -1.0, 0.2}, torch::kDouble).requires_grad_();
  const auto time = torch::tensor({2.0, 1.0, 3.0}), event = torch::tensor({1.0, 1.0, 0.0});
  const double all = std::log(std::exp(0.5) + std::exp(-1) + std::exp(0.2));
  const double later = std::log(std::exp(0.5) + std::exp(0.2));
  const auto loss = cox_loss(risk, time, event);
  EXPECT_NEAR(loss.item<double>(), ((all + 1) + (later - 0.5)) / 2, 1e-9);
  loss.backward();
  EXPECT_TRUE(risk.grad().isfinite().all().item<bool>());
  EXPECT_EQ(cox_loss(risk, time, torch::zeros({3})).item<double>(), 0);
}

TEST(Metrics, OfThreeClasses) {
  BagPredictions all;
  all.logits = {{2, 0, 0}, {0, 2, 0}, {0, 0, 2}, {2, 0, 0}};
  all.targets = {0, 1, 2, 1};
  const auto metrics = classification_metrics(all, 100);
  EXPECT_DOUBLE_EQ(metrics.at("accuracy"), 0.75);
  EXPECT_DOUBLE_EQ(metrics.at("balanced_accuracy"), (1 + 0.5 + 1) / 3);
  EXPECT_NEAR(metrics.at("f1"), (2.0 / 3 + 2.0 / 3 + 1) / 3, 1e-12);
  EXPECT_LE(metrics.at("auc_low"), metrics.at("auc"));
}

class CrossValidation : public FolderTest {};

TEST_F(CrossValidation, AveragesFoldsAndKeepsPredictions) {
  FoldResult one, two;
  one.temperature = 2;
  one.test.names = {"a", "b, c"};
  one.test.all = {{{0, 2}, {3, 0}}, {1, 0}, {0, 0}, {false, false}};
  two.fold = 1;
  two.test.names = {"a"};
  two.test.all = {{{1, 0}}, {1}, {0}, {false}};
  for (FoldResult* fold : {&one, &two})
    fold->metrics = fold_metrics(fold->test, false, fold->temperature);
  const NamedPredictions together = ensemble({one, two}, false);
  ASSERT_EQ(together.names, (std::vector<std::string>{"a", "b, c"}));
  const double expected = (1 / (1 + std::exp(-1.0)) + 1 / (1 + std::exp(1.0))) / 2;
  EXPECT_NEAR(std::exp(together.all.logits[0][1]), expected, 1e-12);
  write_predictions(at("p.csv"), one.test, false, 2);
  const NamedPredictions again = read_predictions(at("p.csv"), false);
  EXPECT_EQ(again.names, one.test.names);
  EXPECT_EQ(again.all.logits, one.test.all.logits);
  const SummaryTable table = summarize({one, two}, false, 50);
  ASSERT_EQ(table.rows.size(), 5U);
  EXPECT_EQ(table.rows[2].first, "mean");
  const auto column = static_cast<size_t>(
      std::find(table.columns.begin(), table.columns.end(), "accuracy") - table.columns.begin());
  EXPECT_DOUBLE_EQ(table.rows[2].second[column], 0.5);
  EXPECT_NEAR(table.rows[3].second[column], std::sqrt(0.5), 1e-12);
  EXPECT_NE(table.markdown().find("| pooled |"), std::string::npos);
}

TEST_F(CrossValidation, DrawsSurvivalCurves) {
  FoldResult fold;
  for (int i = 0; i < 20; ++i) {
    fold.test.names.push_back(std::to_string(i));
    fold.test.all.logits.push_back({static_cast<double>(i)});
    fold.test.all.targets.push_back(0);
    fold.test.all.times.push_back(20 - i);
    fold.test.all.events.push_back(i % 3 != 0);
  }
  const std::string said = draw_survival({fold}, at("km"));
  EXPECT_NE(said.find("log-rank"), std::string::npos);
  EXPECT_NE(read_bytes(at("km.gp")).find("higher risk, n = 10"), std::string::npos);
}

}  // namespace
}  // namespace serpentine
