#include "core/train/trainer.h"

#include <algorithm>
#include <csignal>
#include <utility>

#include <torch/torch.h>

#include "core/check.h"
#include "core/dist/process_group.h"
#include "core/train/signals.h"
#include "core/train/step.h"

namespace serpentine {

Trainer::Trainer(FitOptions options, std::shared_ptr<Model> model, std::shared_ptr<Task> task,
                 torch::Device device, std::shared_ptr<ProcessGroup> group)
    : options_(std::move(options)),
      model_(std::move(model)),
      task_(std::move(task)),
      device_(device),
      group_(std::move(group)),
      schedule_(options_.schedule, options_.optimizer.lr),
      scaler_(options_.trainer.precision == "fp16") {
  model_->to(device_);
  if (group_) {
    group_->broadcast(model_->parameters());
    group_->broadcast(model_->buffers());
  }
  optimizer_ = make_optimizer(options_.optimizer, *model_);
  base_rates_ = base_rates(*optimizer_);
  if (options_.trainer.ema > 0) ema_ = std::make_unique<Ema>(*model_, options_.trainer.ema);
  stepper_ = std::make_unique<Stepper>(options_.trainer, *model_, *task_, device_, *optimizer_,
                                       scaler_, ema_.get(), group_.get());
}

Trainer::~Trainer() = default;

void Trainer::observe(std::shared_ptr<Observer> observer) {
  observers_.push_back(std::move(observer));
}

bool Trainer::first_rank() const { return !group_ || group_->rank() == 0; }

Shard Trainer::shard() const { return group_ ? Shard{group_->rank(), group_->size()} : Shard{}; }

bool Trainer::asked_to_end() const {
  return state_.signal != 0 || state_.stop || state_.early_stopped;
}

TrainState Trainer::fit(const Dataset& train, const Dataset& validation) {
  const StopSignal signals;
  LoaderOptions how = options_.loader;
  how.draw = true;
  Loader loader(train, how, options_.trainer.seed, shard(), device_.is_cuda());
  plan(loader, train.size());
  model_->train();
  state_.stop = false;
  state_.signal = 0;
  while (!asked_to_end() && state_.step < state_.total_steps) train_epoch(loader, validation);

  // max_steps or an observer ended training between two evaluations
  if (state_.signal == 0 && state_.evaluated_step != state_.step)
    evaluate_and_record(validation, false);
  model_->eval();
  for (const auto& observer : observers_) observer->after_fit(state_);
  if (options_.trainer.restore_best && state_.signal == 0 && !best_weights_.empty()) {
    load_state_dict(*model_, best_weights_);
    restored_ = true;
  }
  return state_;
}

void Trainer::plan(const Loader& loader, int64_t examples) {
  SERPENTINE_CHECK(!optimizer_->param_groups().empty(), "trainer",
                   "the model has no parameter that requires a gradient");
  const int64_t batches = loader.num_batches();
  SERPENTINE_CHECK(batches > 0, "trainer",
                   "training needs at least one batch: the training set has ", examples,
                   " examples, a batch ", options_.loader.batch_size,
                   options_.loader.drop_last ? " and drop_last leaves out a smaller one" : "");
  const int64_t each = options_.trainer.accumulate;
  state_.steps_per_epoch = (batches + each - 1) / each;
  state_.total_steps = options_.trainer.epochs * state_.steps_per_epoch;
  if (options_.trainer.max_steps > 0)
    state_.total_steps = std::min(state_.total_steps, options_.trainer.max_steps);
  schedule_.plan(state_.steps_per_epoch, state_.total_steps);
}

void Trainer::train_epoch(Loader& loader, const Dataset& validation) {
  if (state_.batch_in_epoch == 0) stepper_->set_running_loss({});
  loader.start(state_.epoch, state_.batch_in_epoch);
  const int64_t every = options_.trainer.evaluate_steps;
  while (state_.batch_in_epoch < loader.num_batches()) {
    if (every > 0 && state_.step > 0 && state_.step % every == 0)
      evaluate_and_record(validation, false);
    if (asked_to_end() || state_.step >= state_.total_steps) return;
    train_step(loader);
  }
  if (asked_to_end()) return;
  evaluate_and_record(validation, true);
}

void Trainer::train_step(Loader& loader) {
  std::vector<Batch> batches;
  while (static_cast<int64_t>(batches.size()) < options_.trainer.accumulate) {
    std::optional<Batch> batch = loader.next();
    if (!batch) break;
    batches.push_back(std::move(*batch));
  }
  const double factor = schedule_.at(state_.step);
  set_rates(*optimizer_, base_rates_, factor);
  task_->at_step(state_.step);
  const Wishes wishes = stepper_->step(batches, {StopSignal::received(), state_.stop}, state_);
  state_.signal = wishes.signal;
  state_.stop = wishes.stop;
  state_.learning_rate = options_.optimizer.lr * factor;
  state_.batch_in_epoch += static_cast<int64_t>(batches.size());
  ++state_.step;
  if (state_.step % options_.trainer.log_steps == 0) bring_loss_up_to_date();
  for (const auto& observer : observers_) observer->after_step(state_);
}

void Trainer::bring_loss_up_to_date() {
  RunningLoss& loss = stepper_->running_loss();
  torch::Tensor sums = torch::tensor({loss.sum, loss.count}, torch::kFloat64);
  if (group_) sums = group_->host_sum(sums);
  const double sum = sums[0].item<double>(), count = sums[1].item<double>();
  if (count > loss.logged_count)
    state_.loss = (sum - loss.logged_sum) / (count - loss.logged_count);
  if (count > 0) state_.epoch_loss = sum / count;
  loss.logged_sum = sum;
  loss.logged_count = count;
  state_.logged_step = state_.step;
}

/// Nothing changes when a signal interrupts it, so that a resumed run evaluates at the same place.
void Trainer::evaluate_and_record(const Dataset& validation, bool ends_epoch) {
  const auto& o = options_.trainer;
  const bool by_epoch =
      !ends_epoch || (o.evaluate_epochs > 0 && (state_.epoch + 1) % o.evaluate_epochs == 0);
  const bool by_step = o.evaluate_steps > 0 && state_.step % o.evaluate_steps == 0;
  const bool last = state_.step >= state_.total_steps;
  const bool due = validation.size() > 0 && state_.evaluated_step != state_.step &&
                   (by_epoch || by_step || last);
  std::map<std::string, double> metrics;
  if (due && !evaluate_into(validation, metrics)) {
    state_.signal = StopSignal::received() != 0 ? StopSignal::received() : SIGTERM;
    return;
  }
  if (state_.logged_step != state_.step) bring_loss_up_to_date();
  if (ends_epoch) {
    ++state_.epoch;
    state_.batch_in_epoch = 0;
  }
  if (!due) return;
  state_.evaluated_step = state_.step;
  record(metrics);
  for (const auto& observer : observers_) observer->after_evaluation(state_, metrics);
}

void Trainer::record(const std::map<std::string, double>& metrics) {
  std::string name = task_->monitored();
  const bool larger = !name.empty() && name.front() == '+';
  if (larger) name.erase(0, 1);
  const auto found = metrics.find(name);
  SERPENTINE_CHECK(found != metrics.end(), "trainer", "the task monitors '", name,
                   "', which is not one of its metrics");
  const double value = found->second, gain = larger ? value - state_.best : state_.best - value;
  const auto& o = options_.trainer;
  const bool gained = value == value &&
                      (state_.best_epoch < 0 || gain > o.min_gain || (o.tie_is_gain && gain == 0));
  state_.evaluations_without_gain = gained ? 0 : state_.evaluations_without_gain + 1;
  state_.early_stopped = o.patience > 0 && state_.evaluations_without_gain >= o.patience;
  schedule_.after_evaluation(gained);
  if (!gained) return;
  state_.best = value;
  state_.best_epoch = state_.epoch;
  state_.best_step = state_.step;
  if (!o.restore_best) return;
  const EmaScope averaged(ema_.get());
  best_weights_ = state_dict(*model_);
  for (auto& [key, tensor] : best_weights_)
    tensor = tensor.detach().to(torch::kCPU, false, /*copy=*/true);
}

namespace {

/// The rows of rank 0, then those of rank 1 and so on; undefined when no rank has any.
torch::Tensor rows_of_all_ranks(ProcessGroup& group, const torch::Tensor& mine) {
  torch::Tensor sizes = torch::zeros({group.size(), 2}, torch::kFloat64);
  torch::Tensor bytes = torch::zeros({0}, torch::kUInt8);
  if (mine.defined() && mine.numel() > 0) {
    const torch::Tensor rows = mine.to(torch::kCPU, torch::kFloat64).contiguous();
    sizes[group.rank()] = torch::tensor(
        {static_cast<double>(rows.size(0)), static_cast<double>(rows.size(1))}, torch::kFloat64);
    bytes = rows.view(torch::kUInt8).flatten();
  }
  sizes = group.host_sum(sizes);
  const auto width = static_cast<int64_t>(sizes.select(1, 1).max().item<double>());
  if (width == 0) return {};
  const torch::Tensor all = group.host_gather(bytes);  // [ranks, most bytes]
  std::vector<torch::Tensor> parts;
  for (int64_t rank = 0; rank < group.size(); ++rank) {
    const auto count = static_cast<int64_t>(sizes[rank][0].item<double>());
    const torch::Tensor part = all[rank].slice(0, 0, count * width * 8).contiguous();
    parts.push_back(part.view(torch::kFloat64).view({count, width}));
  }
  return torch::cat(parts);
}

}  // namespace

std::map<std::string, double> Trainer::evaluate(const Dataset& dataset) {
  std::map<std::string, double> metrics;
  evaluate_into(dataset, metrics);
  return metrics;
}

bool Trainer::evaluate_into(const Dataset& dataset, std::map<std::string, double>& metrics) {
  const torch::NoGradGuard no_grad;
  const EmaScope averaged(restored_ ? nullptr : ema_.get());
  LoaderOptions how = options_.loader;
  how.shuffle = how.drop_last = false;
  how.repeats = 1;
  if (options_.trainer.evaluation_batch > 0) how.batch_size = options_.trainer.evaluation_batch;
  Loader loader(dataset, how, 0, shard(), device_.is_cuda());
  loader.start(0);
  const bool was_training = model_->is_training();
  model_->eval();
  bool whole = true;
  for (auto batch = loader.next(); batch && whole; batch = loader.next()) {
    const Autocast autocast(device_.type(), apply_precision(options_.trainer.precision));
    if (batch->size() > 0) task_->evaluate(*model_, batch->to(device_, /*non_blocking=*/true));
    whole = StopSignal::received() == 0;
  }
  model_->train(was_training);
  if (group_) {
    const torch::Tensor sums = task_->sums().to(torch::kCPU, torch::kFloat64).flatten();
    const torch::Tensor broken = torch::full({1}, whole ? 0.0 : 1.0, torch::kFloat64);
    const torch::Tensor all = group_->host_sum(torch::cat({sums, broken}));
    task_->set_sums(all.slice(0, 0, -1));
    whole = all[-1].item<double>() == 0;
    if (whole) task_->set_rows(rows_of_all_ranks(*group_, task_->rows()));
  }
  metrics = task_->metrics();
  return whole;
}

int exit_code(const TrainState& state) {
  if (state.signal != 0) return 128 + state.signal;
  return state.failure.empty() ? 0 : 1;
}

}  // namespace serpentine
