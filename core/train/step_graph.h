// Forward and backward of a training step as one CUDA graph: launched at once, not kernel by
// kernel.
//
// A small model's step is a thousand short kernels, and the host takes longer to launch them than
// the GPU to run them. Nguyen et al., "Accelerating PyTorch with CUDA graphs" (2021).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/data/dataset.h"
#include "core/train/task.h"

namespace serpentine {

class StepGraph {
 public:
  /// Forward and backward of a batch that lies on the GPU; leaves gradients.
  using Pass = std::function<Loss(const Batch&)>;

  virtual ~StepGraph() = default;

  /// Whether the batch has the shapes and types of the recorded one.
  virtual bool fits(const Batch& batch) const = 0;
  /// What the pass would do with this batch, on the host or the GPU: the loss, gradients, buffers
  /// and draws of the GPU's generator, bit by bit. The loss and gradients last until the next call.
  virtual Loss replay(const Batch& batch) = 0;

  struct Recorded {
    Loss loss;                         // of the batch, computed as without a graph
    std::unique_ptr<StepGraph> graph;  // null: refused
    std::string refusal;
  };
  /// Runs `pass` on the batch, records it, replays it and compares: a pass that draws on the CPU,
  /// waits for the GPU or differs from its replay in one bit is refused, as is a batch that lies on
  /// no GPU. Either way the gradients,
  /// buffers and generators are those after the pass alone.
  static Recorded record(const Pass& pass, Model& model, const Batch& batch);
};

}  // namespace serpentine
