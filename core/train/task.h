// What the trainer knows of models, tasks and observers. It knows neither labels nor metrics.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <torch/nn/module.h>
#include <torch/types.h>

#include "core/data/dataset.h"

namespace serpentine {

class Model : public torch::nn::Module {
 public:
  virtual torch::Tensor forward(const Batch& batch) = 0;
  /// Keys of a reference checkpoint that this model knowingly has no use for, as prefixes or with
  /// one `*`.
  virtual std::vector<std::string> tolerated_keys() const { return {}; }

  /// While set, forward leaves intermediate tensors there under the names that recordings of the
  /// reference use ("after_embed"): what `serpentine parity` and the golden tests compare.
  std::map<std::string, torch::Tensor>* trace = nullptr;

 protected:
  void leave_trace(const std::string& name, const torch::Tensor& tensor) const {
    if (trace) (*trace)[name] = tensor;
  }
};

struct Loss {
  torch::Tensor value;  // scalar, a mean over `count` elements
  int64_t count = 0;    // weights the mean across batches and ranks
};

class Task {
 public:
  virtual ~Task() = default;
  /// Told before each optimiser step how many were done before, for tasks that go in stages.
  virtual void at_step(int64_t step) { (void)step; }
  virtual Loss loss(Model& model, const Batch& batch) = 0;
  /// Whether the loss is the same function of weights and batch in every step and its count one of
  /// the batch's shape alone, so that a step may be recorded (core/train/step_graph.h). False for
  /// tasks that go in stages.
  virtual bool same_every_step() const { return true; }
  /// Adds one batch to the running sums of the metrics (float64, exact whatever the batch size).
  virtual void evaluate(Model& model, const Batch& batch) = 0;
  /// The metrics of what was evaluated since the last call; resets.
  virtual std::map<std::string, double> metrics() = 0;
  /// The sums behind `metrics`, float64 [M], so that ranks can add theirs before reading.
  virtual torch::Tensor sums() const = 0;
  virtual void set_sums(const torch::Tensor& sums) = 0;
  /// What a metric needs of every example beside sums (ranks of scores), float64 [n, M], or
  /// undefined; ranks put theirs one below the other before reading.
  virtual torch::Tensor rows() const { return {}; }
  virtual void set_rows(const torch::Tensor& rows) { (void)rows; }
  /// The metric that picks the best checkpoint; smaller is better unless it begins with '+'.
  virtual std::string monitored() const = 0;
};

/// Where training stands. Everything an exact resume needs beside tensors.
struct TrainState {
  int64_t epoch = 0;           // finished epochs
  int64_t step = 0;            // finished optimiser steps
  int64_t batch_in_epoch = 0;  // finished batches of the current epoch
  double learning_rate = 0;    // of the last step
  double loss = 0;             // mean over the steps since it was last brought up to date
  double epoch_loss = 0;       // mean over the current epoch so far, or over the one just finished
  int64_t logged_step =
      0;  // the step at which `loss` and `epoch_loss` were last brought up to date
  int64_t evaluated_step = 0;  // the step of the last evaluation
  double best = 0;             // best monitored value, of epoch best_epoch
  int64_t best_epoch = -1;     // -1: none yet
  int64_t best_step = -1;
  int64_t evaluations_without_gain = 0;
  bool early_stopped = false;  // the patience ran out
  bool stop = false;           // an observer may set it: training ends after this step
  int signal = 0;              // SIGINT or SIGTERM, when one asked for the end
  std::string failure;         // why the last work could not be kept, "" when it was

  int64_t steps_per_epoch = 0, total_steps = 0;  // the plan of this run
};

class Observer {
 public:
  virtual ~Observer() = default;
  /// After every optimiser step. With several ranks every rank calls it, at the same steps.
  virtual void after_step(TrainState& state) { (void)state; }
  /// After an evaluation; state.best_step == state.step tells that it was the best one so far.
  virtual void after_evaluation(TrainState& state, const std::map<std::string, double>& metrics) {
    (void)state;
    (void)metrics;
  }
  /// Once, when fit ends: finished, stopped early, or by a signal.
  virtual void after_fit(TrainState& state) { (void)state; }
};

}  // namespace serpentine
