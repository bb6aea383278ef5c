// Tensors of a torch checkpoint: what its pickle says of them, and their bytes.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "core/io/pickle.h"

namespace serpentine {

/// Python's name of a storage class of this type: "FloatStorage". Empty: the format has none.
std::string storage_class(torch::ScalarType type);

/// Makes tensors from the calls that a checkpoint's pickle records.
class TensorBuilder {
 public:
  /// `load` gives the bytes of a storage by its key. `limit`: bytes that all tensors together may
  /// take, so that a small file cannot claim a huge tensor by strides of 0.
  TensorBuilder(std::string who, std::function<std::string(const std::string& key)> load,
                uint64_t limit);

  static bool is_tensor(const PickleValue& value);
  /// A contiguous tensor that owns its memory.
  torch::Tensor build(const PickleValue& value, const std::string& name);

 private:
  struct Storage {
    std::string key;
    torch::ScalarType type = torch::kFloat32;
    int64_t size = 0;  // elements
  };
  Storage storage_of(const PickleValue& value, const std::string& name) const;
  const torch::Tensor& bytes_of(const Storage& storage, const std::string& name);

  std::string who_;
  std::function<std::string(const std::string&)> load_;
  uint64_t left_;
  std::map<std::string, torch::Tensor> loaded_;  // uint8 [bytes], by key
};

}  // namespace serpentine
