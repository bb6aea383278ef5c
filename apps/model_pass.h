// A forward pass, or a step of training, of any model: what `serpentine info` times.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <torch/optim/optimizer.h>
#include <torch/types.h>

#include "core/train/precision.h"
#include "core/train/task.h"

namespace serpentine {

class ModelPass {
 public:
  /// Puts the model on `device`, for `train` in training mode. It must outlive this. `precision`
  /// settles how float32 is meant for the whole process (core/train/precision.h).
  ModelPass(Model& model, torch::Device device, const std::string& precision, bool train);

  /// Without gradients; for training forward, the mean of the squared output in fp32, backward and
  /// AdamW. The batch must lie on the device. Returns when the device has finished.
  void operator()(const Batch& batch);

 private:
  void learn(const Batch& batch);

  Model& model_;
  torch::Device device_;
  std::optional<torch::ScalarType> type_;
  GradScaler scaler_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;  // null without training
};

}  // namespace serpentine
