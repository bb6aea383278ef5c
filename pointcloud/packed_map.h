// A pointwise map for many calls with one weight: oneDNN's products where LibTorch has them, with
// the weight laid out once and what follows the product done while it is in registers.
#pragma once

#include <ATen/core/Tensor.h>

#include "pointcloud/neighbourhood_cpu.h"

namespace serpentine::cpu {

class PackedMap {
 public:
  /// For about `rows` rows of `type` (float32 or bfloat16) at a time.
  PackedMap(const FoldedMap& map, int64_t rows, at::ScalarType type = at::kFloat);

  /// relu(weight x + bias); x: [rows, in] of the type.
  at::Tensor relu_of(const at::Tensor& x) const;
  /// weight x + bias + y; y: [rows, out] of the type.
  at::Tensor plus(const at::Tensor& x, const at::Tensor& y) const;

 private:
  at::Tensor weight_, bias_;
  bool packed_;
};

}  // namespace serpentine::cpu
