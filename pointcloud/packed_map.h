// A pointwise map for many calls with one weight: oneDNN's products where LibTorch has them, with
// the weight laid out once and what follows the product done while it is in registers.
#pragma once

#include <ATen/core/Tensor.h>

#include "pointcloud/neighbourhood_cpu.h"

namespace serpentine::cpu {

class PackedMap {
 public:
  /// For about `rows` rows at a time.
  PackedMap(const FoldedMap& map, int64_t rows);

  /// relu(weight x + bias); x: float32 [rows, in].
  at::Tensor relu_of(const at::Tensor& x) const;
  /// weight x + bias + y; y: float32 [rows, out].
  at::Tensor plus(const at::Tensor& x, const at::Tensor& y) const;

 private:
  at::Tensor weight_, bias_;
  bool packed_;
};

}  // namespace serpentine::cpu
