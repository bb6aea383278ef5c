// Finds the layer in which a value stopped being finite.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/data/dataset.h"
#include "core/train/task.h"

namespace serpentine {

/// Names of a batch's floating tensors that hold NaN or infinity, with the first place: "input[0,
/// 3]".
std::vector<std::string> non_finite_inputs(const Batch& batch);

/// Runs the batch again, watching every operator, and says in which layer and operator the first
/// non-finite value came out of finite ones; "" when all stayed finite.
///
/// Inputs and parameters that are already bad are named first. Gradients are checked when the loss
/// is finite: of the layers with bad gradients the last one in forward order is named, since
/// backward meets it first.
std::string find_non_finite(Model& model, Task& task, const Batch& batch, torch::Device device,
                            std::optional<torch::ScalarType> autocast);

/// Always throws c10::Error with the place in training and what find_non_finite says.
[[noreturn]] void throw_non_finite(Model& model, Task& task, const std::vector<Batch>& batches,
                                   torch::Device device, std::optional<torch::ScalarType> autocast,
                                   const TrainState& state);

}  // namespace serpentine
