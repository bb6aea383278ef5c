#include "core/train/trainer.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "toy.h"

namespace serpentine {

namespace {

FitOptions fast() {
  FitOptions options;
  options.trainer.device = "cpu";
  options.trainer.epochs = 3;
  options.loader.batch_size = 8;
  options.loader.threads = 0;
  options.optimizer.lr = 0.01;
  return options;
}

struct Trained {
  std::shared_ptr<toy::Net> net;
  TrainState state;
};

Trained run(const FitOptions& options, double dropout = 0) {
  seed_everything(4, false);
  Trained out;
  out.net = std::make_shared<toy::Net>(dropout);
  Trainer trainer(options, out.net, std::make_shared<toy::Squares>(), torch::kCPU);
  out.state = trainer.fit(toy::Points(50), toy::Points(21));
  return out;
}

TEST(Trainer, LowersTheLossAndIsDeterministic) {
  FitOptions options = fast();
  options.trainer.epochs = 1;
  const double first = run(options).state.best;
  options.trainer.epochs = 30;
  const Trained longer = run(options, 0.1);
  EXPECT_LT(longer.state.best, first / 2);
  EXPECT_EQ(longer.state.step, 30 * 7);
  EXPECT_TRUE(torch::equal(longer.net->first->weight, run(options, 0.1).net->first->weight));
}

TEST(Trainer, AccumulationEqualsOneLargeBatch) {
  // 50 examples: batches of 16, 16, 16, 2 in both cases; the mask makes counts differ
  FitOptions large = fast(), small = fast();
  large.loader.batch_size = 16;
  small.loader.batch_size = 4;
  small.trainer.accumulate = 4;
  large.optimizer.type = small.optimizer.type = "sgd";
  const Trained a = run(large), b = run(small);
  EXPECT_EQ(a.state.step, b.state.step);
  EXPECT_TRUE(torch::allclose(a.net->first->weight, b.net->first->weight, 1e-5, 1e-6));
  EXPECT_NEAR(a.state.epoch_loss, b.state.epoch_loss, 1e-6);
}

TEST(Trainer, MetricsDoNotDependOnTheBatchSize) {
  seed_everything(4, false);
  const auto net = std::make_shared<toy::Net>(0.5);
  double expected = -1;
  for (const int64_t batch : {1, 4, 21, 100}) {
    FitOptions options = fast();
    options.loader.drop_last = true;  // of training only
    options.trainer.evaluation_batch = batch;
    Trainer trainer(options, net, std::make_shared<toy::Squares>(), torch::kCPU);
    auto metrics = trainer.evaluate(toy::Points(21));
    EXPECT_EQ(metrics.at("seen"), 21 * 3 - 7);
    if (expected < 0) expected = metrics.at("mse");
    EXPECT_NEAR(metrics.at("mse"), expected, 1e-6 * expected);
  }
}

TEST(Trainer, EndsAtMaxStepsAndEvaluates) {
  FitOptions options = fast();
  options.trainer.max_steps = 10;
  const TrainState state = run(options).state;
  EXPECT_EQ(state.step, 10);
  EXPECT_EQ(state.evaluated_step, 10);
  EXPECT_EQ(state.epoch, 1);
}

class Flat : public toy::Squares {  // evaluations: 3, 2, 2, 2, 2, ...
 public:
  std::map<std::string, double> metrics() override { return {{"mse", calls_++ == 0 ? 3.0 : 2.0}}; }
  int calls_ = 0;
};

TEST(Trainer, PatienceCountsTiesAsAsked) {
  FitOptions options = fast();
  options.trainer.epochs = 12;
  options.trainer.patience = 3;
  const auto ended = [&] {
    Trainer trainer(options, std::make_shared<toy::Net>(0), std::make_shared<Flat>(), torch::kCPU);
    return trainer.fit(toy::Points(16), toy::Points(4));
  };
  const TrainState strict = ended();
  EXPECT_EQ(strict.epoch, 5);
  EXPECT_EQ(strict.best_epoch, 2);
  EXPECT_TRUE(strict.early_stopped);
  options.trainer.tie_is_gain = true;
  const TrainState tied = ended();
  EXPECT_EQ(tied.epoch, 12);
  EXPECT_EQ(tied.best_epoch, 12);
  EXPECT_FALSE(tied.early_stopped);
}

class Watcher : public Observer {
 public:
  explicit Watcher(std::shared_ptr<toy::Net> net) : net_(std::move(net)) {}
  void after_evaluation(TrainState& state, const std::map<std::string, double>&) override {
    if (state.best_step == state.step) best = net_->first->weight.detach().clone();
  }
  torch::Tensor best;

 private:
  std::shared_ptr<toy::Net> net_;
};

TEST(Trainer, EndsWithTheBestWeights) {
  FitOptions options = fast();
  options.trainer.epochs = 8;
  options.optimizer.lr = 0.3;  // so large that the last evaluation is not the best
  const auto net = std::make_shared<toy::Net>(0);
  Trainer trainer(options, net, std::make_shared<toy::Squares>(), torch::kCPU);
  const auto watcher = std::make_shared<Watcher>(net);
  trainer.observe(watcher);
  const TrainState state = trainer.fit(toy::Points(50), toy::Points(21));
  EXPECT_TRUE(torch::equal(net->first->weight, watcher->best));
  EXPECT_NEAR(trainer.evaluate(toy::Points(21)).at("mse"), state.best, 1e-9);
  EXPECT_FALSE(net->is_training());
}

TEST(Trainer, ClipsTheNormOfAllGradients) {
  FitOptions options = fast();
  options.optimizer.type = "sgd";
  options.optimizer.lr = 1;
  options.trainer.clip_norm = 0.01;
  options.trainer.max_steps = 1;
  options.trainer.restore_best = false;
  seed_everything(4, false);
  const toy::Net before(0);
  const Trained after = run(options);
  double squares = 0;
  const auto a = before.parameters(), b = after.net->parameters();
  for (size_t i = 0; i < a.size(); ++i) squares += (a[i] - b[i]).square().sum().item<double>();
  EXPECT_NEAR(std::sqrt(squares), 0.01, 1e-5);
}

TEST(Trainer, ClipsEveryElementOfAGradient) {
  FitOptions options = fast();
  options.optimizer.type = "sgd";
  options.optimizer.lr = 1;
  options.trainer.clip_value = 0.01;
  options.trainer.max_steps = 1;
  options.trainer.restore_best = false;
  seed_everything(4, false);
  const toy::Net before(0);
  const Trained after = run(options);
  double largest = 0, clipped = 0;
  const auto a = before.parameters(), b = after.net->parameters();
  for (size_t i = 0; i < a.size(); ++i) {
    const torch::Tensor moved = (a[i] - b[i]).abs();
    largest = std::max(largest, moved.max().item<double>());
    clipped += (moved > 0.0099).sum().item<double>();
  }
  EXPECT_NEAR(largest, 0.01, 1e-6);
  EXPECT_GT(clipped, 10);
}

/// Evaluations as told.
class Told : public toy::Squares {
 public:
  std::map<std::string, double> metrics() override { return {{"mse", values.at(calls_++)}}; }
  std::vector<double> values;

 private:
  size_t calls_ = 0;
};

TEST(Trainer, CountsNoGainBelowTheLeastOne) {
  FitOptions options = fast();
  options.trainer.epochs = 5;
  const auto fitted = [&] {
    const auto task = std::make_shared<Told>();
    task->values = {3, 2.9, 2.7, 2.6, 2.55};
    Trainer trainer(options, std::make_shared<toy::Net>(0), task, torch::kCPU);
    return trainer.fit(toy::Points(16), toy::Points(4));
  };
  EXPECT_EQ(fitted().best_epoch, 5);
  options.trainer.min_gain = 0.2;
  const TrainState state = fitted();
  EXPECT_EQ(state.best_epoch, 3);
  EXPECT_EQ(state.best, 2.7);
  EXPECT_EQ(state.evaluations_without_gain, 2);
}

TEST(Trainer, RefusesWhatDiffersBetweenRunsIfAsked) {
  const auto differs = [] { torch::zeros({4}).put_(torch::tensor({1, 1}), torch::ones({2})); };
  seed_everything(4, true);
  EXPECT_THROW(differs(), c10::Error);
  seed_everything(4, false);
  EXPECT_NO_THROW(differs());
}

TEST(Trainer, LearnsInHalfPrecision) {
  FitOptions options = fast();
  options.trainer.precision = "fp16";
  options.trainer.epochs = 1;
  const double first = run(options).state.best;
  options.trainer.epochs = 30;
  const Trained longer = run(options);
  EXPECT_LT(longer.state.best, first / 2);
  EXPECT_TRUE(torch::equal(longer.net->first->weight, run(options).net->first->weight));
  options.trainer.precision = "fp32";
  EXPECT_NEAR(longer.state.best, run(options).state.best, 0.2 * longer.state.best);
}

/// Gradients beyond the range of float16 under the first scales.
class Steep : public toy::Squares {
 public:
  Loss loss(Model& model, const Batch& batch) override {
    const Loss of = toy::Squares::loss(model, batch);
    return {of.value * 1e5, of.count};
  }
};

TEST(Trainer, SkipsStepsThatOverflowAndHalvesTheScale) {
  FitOptions options = fast();
  options.trainer.precision = "fp16";
  options.trainer.restore_best = false;
  const auto fitted = [&](int64_t steps, const std::shared_ptr<toy::Net>& net) {
    options.trainer.max_steps = steps;
    Trainer trainer(options, net, std::make_shared<Steep>(), torch::kCPU);
    trainer.fit(toy::Points(50), toy::Points(4));
    return trainer.scaler().value();
  };
  seed_everything(4, false);
  const auto net = std::make_shared<toy::Net>(0);
  const torch::Tensor before = net->first->weight.detach().clone();
  EXPECT_EQ(fitted(1, net), 65536 / 2);
  EXPECT_TRUE(torch::equal(net->first->weight, before));
  options.trainer.epochs = 20;
  const double scale = fitted(40, net);
  EXPECT_LT(scale, 1024);
  EXPECT_GT(scale, 1e-3);
  EXPECT_FALSE(torch::equal(net->first->weight, before));
  EXPECT_TRUE(torch::isfinite(net->first->weight).all().item<bool>());
}

TEST(Trainer, SaysWhenThereIsNothingToTrainOn) {
  FitOptions options = fast();
  options.loader.drop_last = true;
  Trainer trainer(options, std::make_shared<toy::Net>(0), std::make_shared<toy::Squares>(),
                  torch::kCPU);
  EXPECT_THROW(trainer.fit(toy::Points(7), toy::Points(0)), c10::Error);
}

}  // namespace

}  // namespace serpentine
