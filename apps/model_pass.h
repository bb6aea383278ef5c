// A forward pass, or a step of training, of any model: what `serpentine info` times.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <torch/optim/optimizer.h>
#include <torch/types.h>

#include "core/train/precision.h"
#include "core/train/step_graph.h"
#include "core/train/task.h"

namespace serpentine {

class ModelPass {
 public:
  /// Puts the model on `device`, for `train` in training mode. It must outlive this. `precision`
  /// settles how float32 is meant for the whole process (core/train/precision.h).
  ModelPass(Model& model, torch::Device device, const std::string& precision, bool train);

  /// For training on a GPU: from the next pass on, forward and backward as one graph
  /// (core/train/step_graph.h). Throws when the pass is refused.
  void use_graph() { with_graph_ = true; }

  /// Without gradients; for training forward, the mean of the squared output in fp32, backward and
  /// AdamW. The batch must lie on the device. Returns when the device has finished.
  void operator()(const Batch& batch);

 private:
  void learn(const Batch& batch);

  Model& model_;
  torch::Device device_;
  std::optional<torch::ScalarType> type_;
  GradScaler scaler_;
  bool with_graph_ = false;
  std::unique_ptr<StepGraph> graph_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;  // null without training
};

}  // namespace serpentine
