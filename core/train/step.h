// One optimiser step: forward and backward over its micro-batches, the sum over ranks, the update.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <torch/optim/optimizer.h>

#include "core/data/dataset.h"
#include "core/dist/gradient_reducer.h"
#include "core/train/ema.h"
#include "core/train/precision.h"
#include "core/train/step_graph.h"
#include "core/train/task.h"

namespace serpentine {

struct TrainerOptions;

/// The training loss of this rank since the epoch began.
struct RunningLoss {
  double sum = 0, count = 0;                // sum of Loss::value x Loss::count, and of the counts
  double logged_sum = 0, logged_count = 0;  // over all ranks, when last brought up to date
};

/// What ranks tell each other in every step.
struct Wishes {
  int signal = 0;     // SIGINT or SIGTERM
  bool stop = false;  // an observer's
};

class Stepper {
 public:
  /// What it is given must outlive it. `group` and `ema` may be null.
  Stepper(const TrainerOptions& options, Model& model, Task& task, torch::Device device,
          torch::optim::Optimizer& optimizer, GradScaler& scaler, Ema* ema, ProcessGroup* group);

  /// Updates the weights with the gradient of the mean loss over all elements of all micro-batches
  /// of all ranks. An empty batch takes part without elements. Returns the wishes of all ranks
  /// together. Throws, naming the layer, when the NaN guard finds a value that is not finite; the
  /// weights are then those before the step (checked every step) or already spoilt (checked when
  /// logging).
  Wishes step(const std::vector<Batch>& batches, Wishes mine, const TrainState& state);

  /// Waits for the device.
  RunningLoss& running_loss();
  void set_running_loss(const RunningLoss& loss);

 private:
  struct Counts {
    double first = 0, mine = 0, all = 0;
  };
  Counts forward_backward(const std::vector<Batch>& batches, const TrainState& state);
  Loss pass(const Batch& batch);  // on the device
  /// Loss and gradients of the only batch of a step, through the graph where there is one.
  Loss pass_or_replay(const Batch& batch, const TrainState& state);
  Wishes exchange(Counts& counts, Wishes mine);
  void add_up(const Counts& counts);
  std::vector<torch::Tensor> gradients() const;
  void clip(const std::vector<torch::Tensor>& gradients, const torch::Tensor& norm) const;
  void guard(const std::vector<Batch>& batches, const torch::Tensor& norm, const TrainState& state);

  const TrainerOptions& options_;
  Model& model_;
  Task& task_;
  torch::Device device_;
  torch::optim::Optimizer& optimizer_;
  GradScaler& scaler_;
  Ema* ema_;
  ProcessGroup* group_;
  std::vector<torch::Tensor> parameters_;
  std::unique_ptr<GradientReducer> reducer_;
  std::vector<bool> used_;
  RunningLoss running_;
  torch::Tensor sum_;  // float64 scalar on the device, ahead of running_.sum
  std::unique_ptr<StepGraph> graph_;
  int64_t eager_steps_ = 0;  // of this process, that might have been replays
  torch::Tensor rng_state_;  // before the step, so that the guard repeats it exactly
};

}  // namespace serpentine
