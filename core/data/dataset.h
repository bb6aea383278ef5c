// What a dataset is: a size and a function from an index to an example.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <c10/util/ArrayRef.h>
#include <torch/types.h>

namespace serpentine {

/// Examples of one step. A field that a domain does not use stays undefined.
struct Batch {
  torch::Tensor input;    // what the model reads, batch first
  torch::Tensor target;   // what the task compares with, batch first
  torch::Tensor coords;   // [B, T, 2 or 3]
  torch::Tensor offsets;  // int32 [B + 1], ragged batches: sample b owns rows [offsets[b], offsets[b + 1])
  std::map<std::string, torch::Tensor> named;  // what only one domain needs, under the names its header lists

  Batch to(torch::Device device) const;
  int64_t size() const { return offsets.defined() ? offsets.size(0) - 1 : input.size(0); }
  /// The named tensor, or an undefined one.
  torch::Tensor get(const std::string& name) const;
};

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  /// One example without a batch axis. Thread-safe. Throws std::out_of_range.
  virtual Batch get(int64_t index) const = 0;
  /// Several examples as one batch; stacks `get` unless a dataset knows a faster way. Thread-safe.
  virtual Batch get_batch(at::ArrayRef<int64_t> indices) const;
};

}  // namespace serpentine
