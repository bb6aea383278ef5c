// Labelled clouds of equal size, in memory.
#pragma once

#include <string>
#include <vector>

#include "core/data/dataset.h"

namespace serpentine {

class CloudDataset : public Dataset {
 public:
  /// points: float32 [M, N, 3]; features: [M, N, C] or undefined; targets: int64 [M]; names: of
  /// files or objects, M of them.
  CloudDataset(torch::Tensor points, torch::Tensor features, torch::Tensor targets,
               std::vector<std::string> names);

  int64_t size() const override { return targets_.size(0); }
  Batch get(int64_t index) const override;
  Batch get_batch(at::ArrayRef<int64_t> indices) const override;
  const std::string& name(int64_t index) const { return names_.at(static_cast<size_t>(index)); }

 private:
  torch::Tensor points_, features_, targets_;
  std::vector<std::string> names_;
};

}  // namespace serpentine
