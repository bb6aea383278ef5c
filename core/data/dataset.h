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
  torch::Tensor input;   // what the model reads, batch first
  torch::Tensor target;  // what the task compares with, batch first
  torch::Tensor coords;  // [B, T, 2 or 3]
  torch::Tensor
      offsets;  // int32 [B + 1], ragged batches: sample b owns rows [offsets[b], offsets[b + 1])
  std::map<std::string, torch::Tensor>
      named;  // what only one domain needs, under the names its header lists

  /// Every tensor on `device`; `non_blocking` only helps from pinned memory.
  Batch to(torch::Device device, bool non_blocking = false) const;
  /// Every tensor in page-locked memory, from which a GPU copies while the CPU goes on.
  Batch pinned() const;
  /// Examples; 0 for a rank's part of a batch that is smaller than the number of ranks.
  int64_t size() const {
    if (offsets.defined()) return offsets.size(0) - 1;
    return input.defined() ? input.size(0) : 0;
  }
  /// The named tensor, or an undefined one.
  torch::Tensor get(const std::string& name) const;
};

/// What a training batch is drawn with: all that its chance may depend on.
struct Draw {
  int64_t seed = 0, epoch = 0;
  at::ArrayRef<int64_t> copies;  // of each index: how often it came before in a row
};

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  /// One example without a batch axis. Thread-safe. Throws std::out_of_range.
  virtual Batch get(int64_t index) const = 0;
  /// Several examples as one batch; stacks `get` unless a dataset knows a faster way. Thread-safe.
  /// It may hold fewer examples than asked for: what cannot be read is left out.
  virtual Batch get_batch(at::ArrayRef<int64_t> indices) const;
  /// The same for training: a dataset that varies its examples overrides it. A function of its
  /// arguments only, whatever thread calls it.
  virtual Batch draw(at::ArrayRef<int64_t> indices, const Draw& how) const {
    (void)how;
    return get_batch(indices);
  }
};

}  // namespace serpentine
