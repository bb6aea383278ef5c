#include "core/train/classification.h"

#include <cmath>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "core/train/class_metrics.h"

namespace serpentine {
namespace {

/// Gives back its input as logits.
class Echo : public Model {
 public:
  torch::Tensor forward(const Batch& batch) override { return batch.input; }
};

Batch batch_of(const torch::Tensor& logits, const torch::Tensor& target) {
  Batch batch;
  batch.input = logits;
  batch.target = target;
  return batch;
}

TEST(Classification, LossIsTorchsCrossEntropy) {
  torch::manual_seed(1);
  const auto logits = torch::randn({6, 4}), target = torch::tensor({0, 3, 1, 1, 2, 0});
  const auto shares = torch::softmax(torch::randn({6, 4}), 1);
  namespace F = torch::nn::functional;
  for (const double smoothing : {0.0, 0.1}) {
    ClassificationTaskOptions options;
    options.label_smoothing = smoothing;
    ClassificationTask task(options);
    Echo model;
    const auto how = F::CrossEntropyFuncOptions().label_smoothing(smoothing);
    for (const auto& truth : {target, shares}) {
      const auto loss = task.loss(model, batch_of(logits, truth));
      EXPECT_NEAR(loss.value.item<double>(), F::cross_entropy(logits, truth, how).item<double>(),
                  1e-6);
      EXPECT_EQ(loss.count, 6);
    }
  }
}

TEST(Classification, WeightsAreMeansOverExamples) {
  const auto logits = torch::randn({4, 2}), target = torch::tensor({0, 1, 1, -1});
  ClassificationTaskOptions options;
  options.class_weights = {2, 0.5};
  ClassificationTask task(options);
  Echo model;
  const auto each = -torch::log_softmax(logits, 1);
  const double expected = (2 * each[0][0] + 0.5 * each[1][1] + 0.5 * each[2][1]).item<double>() / 3;
  const auto loss = task.loss(model, batch_of(logits, target));
  EXPECT_NEAR(loss.value.item<double>(), expected, 1e-6);

  // an example without a class is left out
  const auto unknown = task.loss(model, batch_of(logits, torch::full({4}, -1, torch::kLong)));
  EXPECT_EQ(unknown.value.item<double>(), 0);

  auto weighed = batch_of(logits, target);
  weighed.named["weight"] = torch::tensor({3.0f, 0.0f, 0.0f, 7.0f});
  EXPECT_NEAR(task.loss(model, weighed).value.item<double>(), 6 * each[0][0].item<double>() / 3,
              1e-6);
}

TEST(Classification, MetricsDoNotDependOnTheBatchSize) {
  torch::manual_seed(2);
  const auto logits = torch::randn({37, 7}), target = torch::randint(7, {37});
  std::map<std::string, double> first;
  for (const int64_t size : {1, 5, 37}) {
    ClassificationTask task({});
    Echo model;
    for (int64_t at = 0; at < 37; at += size)
      task.evaluate(model,
                    batch_of(logits.slice(0, at, at + size), target.slice(0, at, at + size)));
    const auto metrics = task.metrics();
    if (first.empty()) first = metrics;
    for (const auto& [name, value] : metrics) {
      EXPECT_NEAR(value, first.at(name), 1e-12) << name;
    }
  }
  EXPECT_EQ(first.count("top5"), 1U);
  const double right = logits.argmax(1).eq(target).sum().item<double>();
  EXPECT_NEAR(first.at("accuracy"), right / 37, 1e-12);
  const auto five = std::get<1>(logits.topk(5, 1)).eq(target.unsqueeze(1)).any(1);
  EXPECT_NEAR(first.at("top5"), five.sum().item<double>() / 37, 1e-12);
}

TEST(Classification, RanksAddUp) {
  torch::manual_seed(3);
  const auto logits = torch::randn({20, 3}), target = torch::randint(3, {20});
  Echo model;
  ClassificationTask whole({}), left({}), right({});
  whole.evaluate(model, batch_of(logits, target));
  left.evaluate(model, batch_of(logits.slice(0, 0, 8), target.slice(0, 0, 8)));
  right.evaluate(model, batch_of(logits.slice(0, 8), target.slice(0, 8)));
  const auto rows = torch::cat({left.rows(), right.rows()});
  left.set_sums(left.sums() + right.sums());
  left.set_rows(rows);
  const auto expected = whole.metrics(), got = left.metrics();
  for (const auto& [name, value] : expected) {
    EXPECT_NEAR(value, got.at(name), 1e-12) << name;
  }
}

TEST(Classification, RefusesAClassTheModelDoesNotKnow) {
  ClassificationTask task({});
  Echo model;
  EXPECT_ANY_THROW(task.evaluate(model, batch_of(torch::zeros({1, 2}), torch::tensor({2}))));
}

TEST(ClassMetrics, AreaIsTheShareOfOrderedPairs) {
  torch::manual_seed(4);
  const auto scores = torch::randint(6, {50}).to(torch::kFloat64);  // with ties
  const auto positive = torch::rand({50}) < 0.4;
  double ordered = 0, pairs = 0;
  for (int64_t i = 0; i < 50; ++i) {
    for (int64_t j = 0; j < 50; ++j) {
      if (!positive[i].item<bool>() || positive[j].item<bool>()) continue;
      const double a = scores[i].item<double>(), b = scores[j].item<double>();
      ordered += a > b ? 1 : a == b ? 0.5 : 0;
      ++pairs;
    }
  }
  EXPECT_NEAR(roc_auc(scores, positive), ordered / pairs, 1e-12);
  EXPECT_TRUE(std::isnan(roc_auc(scores, torch::ones({50}, torch::kBool))));
}

TEST(ClassMetrics, ReportAndCalibrationByHand) {
  // truth 0 0 0 1 1; guesses 0 0 1 1 0
  const auto chance =
      torch::tensor({{0.9, 0.1}, {0.58, 0.42}, {0.3, 0.7}, {0.21, 0.79}, {0.55, 0.45}});
  const auto target = torch::tensor({0, 0, 0, 1, 1});
  const auto table = confusion_matrix(chance, target);
  EXPECT_TRUE(table.equal(torch::tensor({{2.0, 1.0}, {1.0, 1.0}}, torch::kFloat64)));
  const auto report = class_report(table);
  EXPECT_NEAR(report.precision[0].item<double>(), 2.0 / 3, 1e-12);
  EXPECT_NEAR(report.recall[1].item<double>(), 0.5, 1e-12);
  EXPECT_NEAR(report.f1[1].item<double>(), 0.5, 1e-12);
  EXPECT_NEAR(balanced_accuracy(table), (2.0 / 3 + 0.5) / 2, 1e-12);

  // bins of a fifth: (0.4, 0.6]: 0.58 right, 0.55 wrong; (0.6, 0.8]: 0.7 wrong, 0.79 right; then
  // 0.9
  const auto bins = calibration_bins(chance.to(torch::kFloat64), target, 5);
  EXPECT_NEAR(calibration_error(bins), (0.13 + 0.49 + 0.1) / 5, 1e-6);
}

}  // namespace
}  // namespace serpentine
