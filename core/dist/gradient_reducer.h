// Adds the gradients of all ranks, many small tensors at a time.
#pragma once

#include <cstdint>
#include <vector>

#include <torch/types.h>

#include "core/dist/process_group.h"

namespace serpentine {

/// Packs gradients into buckets, last parameter first as backward makes them, in an order that is
/// the same on every rank and in every step, so that sums are reproducible.
class GradientReducer {
 public:
  GradientReducer(ProcessGroup& group, std::vector<torch::Tensor> parameters,
                  int64_t bucket_bytes = 25 << 20);

  /// The gradient of each parameter becomes the sum over ranks of `factor` x theirs; `used[i]`
  /// tells whether any rank has a gradient for parameter i, others keep none.
  void reduce(const std::vector<bool>& used, double factor);

 private:
  ProcessGroup& group_;
  std::vector<torch::Tensor> parameters_;
  int64_t bucket_bytes_;
};

}  // namespace serpentine
