#include "core/train/step.h"

#include <csignal>
#include <iostream>
#include <string>
#include <utility>

#include <ATen/CPUGeneratorImpl.h>
#include <torch/torch.h>

#include "core/check.h"
#include "core/train/nan_guard.h"
#include "core/train/trainer.h"

namespace serpentine {

Stepper::Stepper(const TrainerOptions& options, Model& model, Task& task, torch::Device device,
                 torch::optim::Optimizer& optimizer, GradScaler& scaler, Ema* ema,
                 ProcessGroup* group)
    : options_(options),
      model_(model),
      task_(task),
      device_(device),
      optimizer_(optimizer),
      scaler_(scaler),
      ema_(ema),
      group_(group) {
  for (const auto& part : optimizer_.param_groups()) {
    for (const auto& parameter : part.params()) parameters_.push_back(parameter);
  }
  if (group_) reducer_ = std::make_unique<GradientReducer>(*group_, parameters_);
  set_running_loss({});
}

Wishes Stepper::step(const std::vector<Batch>& batches, Wishes mine, const TrainState& state) {
  rng_state_ = at::detail::getDefaultCPUGenerator().get_state();
  optimizer_.zero_grad();
  Counts counts = forward_backward(batches, state);
  const Wishes wishes = exchange(counts, mine);
  if (counts.all == 0) return wishes;  // nothing to learn from
  add_up(counts);

  const torch::NoGradGuard no_grad;
  const auto all = gradients();
  const bool finite = scaler_.unscale(all);
  scaler_.update(finite);
  const bool guarded = options_.nan_guard != "off";
  torch::Tensor norm;
  if (finite && !all.empty() && (guarded || options_.clip_norm > 0)) {
    norm = torch::linalg_vector_norm(torch::stack(at::_foreach_norm(all, 2)));
  }
  if (guarded) guard(batches, norm, state);
  if (!finite) return wishes;  // fp16 overflow: the next step has a smaller scale
  clip(all, norm);
  optimizer_.step();
  if (ema_) ema_->update();
  return wishes;
}

Loss Stepper::pass(const Batch& batch) {
  Loss loss;
  {
    const Autocast autocast(device_.type(), apply_precision(options_.precision));
    loss = task_.loss(model_, batch);
  }
  SERPENTINE_CHECK(loss.value.defined() && loss.value.dim() == 0, "trainer",
                   "the task's loss must be a scalar");
  return loss;
}

Loss Stepper::pass_or_replay(const Batch& batch, const TrainState& state) {
  constexpr int64_t kWarmSteps = 3;  // first steps choose algorithms and fill caches
  if (graph_ && graph_->fits(batch)) return graph_->replay(batch);
  const auto with_backward = [this](const Batch& there) {
    Loss loss = pass(there);
    if (loss.count > 0) loss.value.backward();
    return loss;
  };
  const Batch there = batch.to(device_, /*non_blocking=*/true);
  if (++eager_steps_ != kWarmSteps + 1) return with_backward(there);
  auto recorded = StepGraph::record(with_backward, model_, there);
  graph_ = std::move(recorded.graph);
  if (!graph_) {
    std::cerr << "trainer.cuda_graph: step " << state.step
              << " is not recorded: " << recorded.refusal << "; training goes on without."
              << std::endl;
  }
  return recorded.loss;
}

Stepper::Counts Stepper::forward_backward(const std::vector<Batch>& batches,
                                          const TrainState& state) {
  Counts counts;
  const bool whole = options_.cuda_graph && device_.is_cuda() && !scaler_.enabled() &&
                     batches.size() == 1 && task_.same_every_step();
  for (const auto& batch : batches) {
    if (batch.size() == 0) continue;
    Loss loss =
        whole ? pass_or_replay(batch, state) : pass(batch.to(device_, /*non_blocking=*/true));
    if (loss.count <= 0) continue;  // every element was masked: the mean is 0 / 0

    // weights relative to the first micro-batch keep the usual case exact and fp16 in range
    const auto count = static_cast<double>(loss.count);
    if (counts.first == 0) counts.first = count;
    counts.mine += count;
    const double weight = count / counts.first;
    if (!whole) scaler_.scale(weight == 1 ? loss.value : loss.value * weight).backward();
    sum_.add_(loss.value.detach().to(torch::kFloat64), count);
  }
  running_.count += counts.mine;
  return counts;
}

Wishes Stepper::exchange(Counts& counts, Wishes mine) {
  counts.all = counts.mine;
  if (!group_) return mine;
  std::vector<double> told = {counts.mine, mine.signal == SIGINT ? 1.0 : 0.0,
                              mine.signal == SIGTERM ? 1.0 : 0.0, mine.stop ? 1.0 : 0.0};
  for (const auto& parameter : parameters_) told.push_back(parameter.grad().defined() ? 1 : 0);
  const torch::Tensor sum = group_->host_sum(torch::tensor(told, torch::kFloat64));
  const double* heard = sum.const_data_ptr<double>();
  counts.all = heard[0];
  used_.assign(parameters_.size(), false);
  for (size_t i = 0; i < parameters_.size(); ++i) used_[i] = heard[4 + i] > 0;
  Wishes all;
  all.signal = heard[2] > 0 ? SIGTERM : heard[1] > 0 ? SIGINT : 0;
  all.stop = heard[3] > 0;
  return all;
}

/// Gradients so far are of sum(count x loss) / first over this rank; makes them of the mean over
/// all.
void Stepper::add_up(const Counts& counts) {
  const double factor = counts.first / counts.all;
  if (reducer_) {
    reducer_->reduce(used_, factor);
  } else if (factor != 1) {
    const torch::NoGradGuard no_grad;
    const auto all = gradients();
    if (!all.empty()) at::_foreach_mul_(all, factor);
  }
}

std::vector<torch::Tensor> Stepper::gradients() const {
  std::vector<torch::Tensor> out;
  for (const auto& parameter : parameters_) {
    if (parameter.grad().defined()) out.push_back(parameter.grad());
  }
  return out;
}

void Stepper::clip(const std::vector<torch::Tensor>& gradients, const torch::Tensor& norm) const {
  if (gradients.empty()) return;
  if (options_.clip_norm > 0)
    at::_foreach_mul_(gradients, (options_.clip_norm / (norm + 1e-6)).clamp_max(1));
  if (options_.clip_value > 0) {
    at::_foreach_clamp_min_(gradients, -options_.clip_value);
    at::_foreach_clamp_max_(gradients, options_.clip_value);
  }
}

void Stepper::guard(const std::vector<Batch>& batches, const torch::Tensor& norm,
                    const TrainState& state) {
  const bool when_logging =
      options_.nan_guard == "log" || (options_.nan_guard == "auto" && !device_.is_cpu());
  if (when_logging && (state.step + 1) % options_.log_steps != 0) return;
  constexpr double kHopelessScale = 1e-4;  // every gradient overflowed some thirty times
  bool bad = !torch::isfinite(sum_).item<bool>() ||
             (scaler_.enabled() && scaler_.value() < kHopelessScale);
  if (norm.defined()) bad = bad || !torch::isfinite(norm).item<bool>();
  if (!bad) return;
  if (!when_logging) at::Generator(at::detail::getDefaultCPUGenerator()).set_state(rng_state_);
  throw_non_finite(model_, task_, batches, device_, apply_precision(options_.precision), state);
}

RunningLoss& Stepper::running_loss() {
  running_.sum = sum_.item<double>();
  return running_;
}

void Stepper::set_running_loss(const RunningLoss& loss) {
  running_ = loss;
  sum_ = torch::full({}, loss.sum, torch::TensorOptions().dtype(torch::kFloat64).device(device_));
}

}  // namespace serpentine
