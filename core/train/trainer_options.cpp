// The options of a training run, and the choice of device and seeds.
#include <ATen/Context.h>
#include <torch/torch.h>

#include "core/check.h"
#include "core/train/trainer.h"

namespace serpentine {

void TrainerOptions::fields(Fields& f) {
  f("epochs", epochs, "epochs at most", {.least = 0});
  f("max_steps", max_steps, "optimiser steps at most; 0: no limit", {.least = 0});
  f("accumulate", accumulate, "batches whose gradients make one optimiser step", {.least = 1});
  f("clip_norm", clip_norm, "largest norm of all gradients together; 0: not clipped", {.least = 0});
  f("clip_value", clip_value, "largest absolute value of a gradient's element; 0: not clipped",
    {.least = 0});
  f("ema", ema, "decay of the average of the weights, which is then evaluated and kept; 0: none",
    {.least = 0, .most = 0.9999999});
  f("precision", precision,
    "of matrix products: fp32 (IEEE), tf32 on a GPU, or 16 bits by autocast",
    {.choices = {"fp32", "tf32", "bf16", "fp16"}});
  f("device", device, "where to train; auto takes a GPU if there is one",
    {.choices = {"auto", "cpu", "cuda"}});
  f("seed", seed, "of the weights, the order of examples and dropout");
  f("deterministic", deterministic, "refuse operators whose results differ between runs");
  f("cuda_graph", cuda_graph,
    "on a GPU record forward and backward once and launch them as one: for small models whose "
    "batches have one shape; refused, with the reason, where a replay would differ");
  f("evaluate_epochs", evaluate_epochs, "epochs between evaluations; 0: not by epochs",
    {.least = 0});
  f("evaluate_steps", evaluate_steps, "steps between evaluations; 0: not by steps", {.least = 0});
  f("evaluation_batch", evaluation_batch, "examples of a batch in evaluation; 0: as in training",
    {.least = 0});
  f("patience", patience, "evaluations without gain after which training stops; 0: never",
    {.least = 0});
  f("tie_is_gain", tie_is_gain, "whether equalling the best evaluation counts as a gain");
  f("min_gain", min_gain, "how much better than the best an evaluation must be", {.least = 0});
  f("restore_best", restore_best, "end with the weights of the best evaluation");
  f("log_steps", log_steps, "steps between updates of the reported training loss", {.least = 1});
  f("nan_guard", nan_guard,
    "when to look for values that are not finite: step, log (with the loss), off; auto: step on a "
    "CPU, else log",
    {.choices = {"auto", "step", "log", "off"}});
}

void FitOptions::fields(Fields& f) {
  f.group("trainer", trainer, "the training loop");
  f.group("loader", loader, "how batches are made");
  f.group("optimizer", optimizer, "how weights are updated");
  f.group("schedule", schedule, "how the learning rate changes");
}

torch::Device pick_device(const std::string& name, int64_t local_rank) {
  SERPENTINE_CHECK(name == "auto" || name == "cpu" || name == "cuda", "trainer",
                   "device must be auto, cpu or cuda, got '", name, "'");
  if (name == "cpu") return torch::kCPU;
  const auto count = static_cast<int64_t>(torch::cuda::device_count());
  if (count == 0) {
    SERPENTINE_CHECK(name == "auto", "trainer",
                     "device cuda was asked for, but this program sees no GPU (it may have been "
                     "built without CUDA)");
    return torch::kCPU;
  }
  SERPENTINE_CHECK(local_rank < count, "trainer", "process ", local_rank,
                   " of this machine needs a GPU of its own, ", "but there are ", count);
  return {torch::kCUDA, static_cast<c10::DeviceIndex>(local_rank)};
}

void seed_everything(int64_t seed, bool deterministic) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  at::globalContext().setDeterministicAlgorithms(deterministic, /*warn_only=*/false);
  at::globalContext().setDeterministicCuDNN(deterministic);
  at::globalContext().setBenchmarkCuDNN(!deterministic);
}

}  // namespace serpentine
