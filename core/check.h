// Checks of public functions' arguments. Each message says who, the rule with numbers, and what
// came.
#pragma once

#include <string>

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

/// Throws c10::Error "who: message" unless the condition holds.
#define SERPENTINE_CHECK(condition, who, ...) TORCH_CHECK(condition, who, ": ", __VA_ARGS__)

namespace serpentine {

/// `name` must have exactly `shape`; -1 accepts any extent. `letters` names the axes: "B, T, D".
inline void check_shape(const char* who, const at::Tensor& tensor, const char* name,
                        at::IntArrayRef shape, const char* letters) {
  SERPENTINE_CHECK(tensor.defined(), who, name, " is missing");
  bool same = tensor.dim() == static_cast<int64_t>(shape.size());
  for (int64_t axis = 0; same && axis < tensor.dim(); ++axis) {
    same = shape[axis] < 0 || tensor.size(axis) == shape[axis];
  }
  SERPENTINE_CHECK(same, who, name, " must be [", letters, "] = ", shape, ", got ", tensor.sizes());
}

/// The dtypes of a scan's rows: float32, float64, bfloat16, float16.
inline void check_float(const char* who, const at::Tensor& tensor, const char* name) {
  const at::ScalarType type = tensor.scalar_type();
  SERPENTINE_CHECK(
      type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16, who,
      name, " must be float32, float64, bfloat16 or float16, got ", type);
}

/// An operand that is there must have this dtype.
inline void check_dtype(const char* who, const at::Tensor& tensor, const char* name,
                        at::ScalarType type) {
  SERPENTINE_CHECK(!tensor.defined() || tensor.scalar_type() == type, who, name, " must be ", type,
                   ", got ", tensor.scalar_type());
}

inline void check_same_device(const char* who, const at::Tensor& tensor, const char* name,
                              const at::Tensor& as) {
  SERPENTINE_CHECK(tensor.device() == as.device(), who, name, " must be on ", as.device(), ", got ",
                   tensor.device());
}

}  // namespace serpentine
