// The training loop: one for every model, task and number of processes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <torch/optim/optimizer.h>

#include "core/config.h"
#include "core/data/loader.h"
#include "core/io/state_dict.h"
#include "core/train/ema.h"
#include "core/train/optim.h"
#include "core/train/precision.h"
#include "core/train/schedule.h"
#include "core/train/task.h"

namespace serpentine {

class ProcessGroup;
class Stepper;

struct TrainerOptions {
  int64_t epochs = 10;
  int64_t max_steps = 0;
  int64_t accumulate = 1;
  double clip_norm = 0;
  double clip_value = 0;
  double ema = 0;
  std::string precision = "fp32";
  std::string device = "auto";
  int64_t seed = 0;
  bool deterministic = false;
  bool cuda_graph = false;
  int64_t evaluate_epochs = 1;
  int64_t evaluate_steps = 0;
  int64_t evaluation_batch = 0;
  int64_t patience = 0;
  bool tie_is_gain = false;
  double min_gain = 0;
  bool restore_best = true;
  int64_t log_steps = 10;
  std::string nan_guard = "auto";
  void fields(Fields& f);
};

/// The mappings `trainer`, `loader`, `optimizer` and `schedule` of a run's YAML.
struct FitOptions {
  TrainerOptions trainer;
  LoaderOptions loader;
  OptimizerOptions optimizer;
  ScheduleOptions schedule;
  void fields(Fields& f);
};

/// "auto" (a GPU if there is one), "cpu" or "cuda" (the GPU of this local rank).
torch::Device pick_device(const std::string& name, int64_t local_rank = 0);

/// Seeds every generator of this process, and asks for deterministic algorithms if wanted.
void seed_everything(int64_t seed, bool deterministic);

class Trainer {
 public:
  /// Moves the model to `device`. `group`: the processes that share the work, or null for one;
  /// every rank starts from rank 0's weights.
  Trainer(FitOptions options, std::shared_ptr<Model> model, std::shared_ptr<Task> task,
          torch::Device device, std::shared_ptr<ProcessGroup> group = nullptr);
  ~Trainer();

  /// Observers are told in the order in which they came.
  void observe(std::shared_ptr<Observer> observer);

  /// Trains until the last epoch, max_steps, the patience, an observer or SIGINT/SIGTERM ends it,
  /// from wherever a resumed state stands. With restore_best the model ends with the weights of the
  /// best evaluation (averaged ones with ema); not after a signal. An empty validation set is never
  /// evaluated.
  TrainState fit(const Dataset& train, const Dataset& validation);

  /// The task's metrics over a whole data set, exact for any batch size and number of ranks: of the
  /// averaged weights while there are any, of the best ones once fit() has restored them.
  std::map<std::string, double> evaluate(const Dataset& dataset);

  /// What a checkpoint holds beside rank_state, by reference; see checkpoint.h.
  const FitOptions& options() const { return options_; }
  Model& model() { return *model_; }
  torch::Device device() const { return device_; }
  torch::optim::Optimizer& optimizer() { return *optimizer_; }
  Schedule& schedule() { return schedule_; }
  GradScaler& scaler() { return scaler_; }
  Ema* ema() { return ema_.get(); }
  TrainState& state() { return state_; }
  StateDict& best_weights() { return best_weights_; }  // empty without restore_best or evaluation
  Stepper& stepper() { return *stepper_; }
  ProcessGroup* group() { return group_.get(); }
  bool first_rank() const;

 private:
  Shard shard() const;
  bool asked_to_end() const;
  void plan(const Loader& loader, int64_t examples);
  void train_epoch(Loader& loader, const Dataset& validation);
  void train_step(Loader& loader);
  void bring_loss_up_to_date();
  void evaluate_and_record(const Dataset& validation, bool ends_epoch);
  void record(const std::map<std::string, double>& metrics);
  bool evaluate_into(const Dataset& dataset, std::map<std::string, double>& metrics);

  FitOptions options_;
  std::shared_ptr<Model> model_;
  std::shared_ptr<Task> task_;
  torch::Device device_;
  std::shared_ptr<ProcessGroup> group_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
  Schedule schedule_;
  GradScaler scaler_;
  std::unique_ptr<Ema> ema_;
  std::unique_ptr<Stepper> stepper_;
  std::vector<double> base_rates_;
  std::vector<std::shared_ptr<Observer>> observers_;
  TrainState state_;
  StateDict best_weights_;
  bool restored_ = false;  // the model holds the best weights: they are not averaged again
};

/// What a program returns: 128 + the signal that ended training, 1 when the last work could not be
/// kept, or 0.
int exit_code(const TrainState& state);

}  // namespace serpentine
