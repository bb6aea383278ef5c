#include "pointcloud/number_type.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include <ATen/ATen.h>

#include "core/check.h"

namespace serpentine {
namespace {

// calls `use` with a number of the stored type
template <class Use>
auto with_type(NumberType type, const Use& use) {
  switch (type) {
    case NumberType::kI8:
      return use(int8_t{});
    case NumberType::kU8:
      return use(uint8_t{});
    case NumberType::kI16:
      return use(int16_t{});
    case NumberType::kU16:
      return use(uint16_t{});
    case NumberType::kI32:
      return use(int32_t{});
    case NumberType::kU32:
      return use(uint32_t{});
    case NumberType::kI64:
      return use(int64_t{});
    case NumberType::kU64:
      return use(uint64_t{});
    case NumberType::kF32:
      return use(float{});
    case NumberType::kF64:
      return use(double{});
  }
  TORCH_CHECK(false, "there is no such number type");
}

template <class Number>
Number load(const char* bytes, bool swap) {
  char own[sizeof(Number)];
  std::memcpy(own, bytes, sizeof own);
  if (swap) std::reverse(own, own + sizeof own);
  Number value;
  std::memcpy(&value, own, sizeof own);
  return value;
}

template <class Number>
void store(Number value, char* bytes, bool swap) {
  char own[sizeof(Number)];
  std::memcpy(own, &value, sizeof own);
  if (swap) std::reverse(own, own + sizeof own);
  std::memcpy(bytes, own, sizeof own);
}

template <class Number>
Number narrowed(double value) {
  if constexpr (std::is_floating_point_v<Number>) {
    return static_cast<Number>(value);
  } else {
    if (!std::isfinite(value)) return 0;
    const auto least = static_cast<double>(std::numeric_limits<Number>::lowest());
    const auto most = static_cast<double>(std::numeric_limits<Number>::max());
    if (value <= least) return std::numeric_limits<Number>::lowest();
    if (value >= most) return std::numeric_limits<Number>::max();
    return static_cast<Number>(value);
  }
}

}  // namespace

size_t bytes_of(NumberType type) {
  return with_type(type, [](auto number) { return sizeof number; });
}

at::ScalarType tensor_type(NumberType type) {
  switch (type) {
    case NumberType::kI8:
      return at::kChar;
    case NumberType::kU8:
      return at::kByte;
    case NumberType::kI16:
      return at::kShort;
    case NumberType::kU16:
    case NumberType::kI32:
      return at::kInt;
    case NumberType::kU32:
    case NumberType::kI64:
    case NumberType::kU64:
      return at::kLong;
    case NumberType::kF32:
      return at::kFloat;
    case NumberType::kF64:
      return at::kDouble;
  }
  TORCH_CHECK(false, "there is no such number type");
}

NumberType stored_type(at::ScalarType type) {
  switch (type) {
    case at::kBool:
    case at::kByte:
      return NumberType::kU8;
    case at::kChar:
      return NumberType::kI8;
    case at::kShort:
      return NumberType::kI16;
    case at::kInt:
      return NumberType::kI32;
    case at::kLong:
      return NumberType::kI64;
    case at::kDouble:
      return NumberType::kF64;
    default:
      return NumberType::kF32;
  }
}

double read_number(const char* bytes, NumberType type, bool swap) {
  return with_type(
      type, [&](auto number) { return static_cast<double>(load<decltype(number)>(bytes, swap)); });
}

at::Tensor read_column(const char* rows, size_t stride, int64_t count, NumberType type, bool swap) {
  at::Tensor values = at::empty({count}, at::TensorOptions(tensor_type(type)));
  with_type(type, [&](auto number) {
    using Number = decltype(number);
    const auto fill = [&](auto* to) {
      for (int64_t i = 0; i < count; ++i) {
        to[i] = static_cast<std::remove_reference_t<decltype(*to)>>(
            load<Number>(rows + static_cast<size_t>(i) * stride, swap));
      }
    };
    if constexpr (std::is_same_v<Number, uint16_t>) {
      fill(values.mutable_data_ptr<int32_t>());
    } else if constexpr (std::is_same_v<Number, uint32_t> || std::is_same_v<Number, uint64_t>) {
      fill(values.mutable_data_ptr<int64_t>());
    } else {
      fill(values.mutable_data_ptr<Number>());
    }
    return 0;
  });
  return values;
}

void write_column(const at::Tensor& values, char* rows, size_t stride, NumberType type, bool swap) {
  const int64_t count = values.numel();
  with_type(type, [&](auto number) {
    using Number = decltype(number);
    const bool whole = at::isIntegralType(values.scalar_type(), /*includeBool=*/true);
    if (whole && sizeof(Number) == sizeof(int64_t) && std::is_integral_v<Number>) {
      const at::Tensor exact = values.to(at::kCPU, at::kLong).contiguous();
      const auto* from = exact.const_data_ptr<int64_t>();
      for (int64_t i = 0; i < count; ++i)
        store(static_cast<Number>(from[i]), rows + static_cast<size_t>(i) * stride, swap);
      return 0;
    }
    const at::Tensor wide = values.to(at::kCPU, at::kDouble).contiguous();
    const auto* from = wide.const_data_ptr<double>();
    for (int64_t i = 0; i < count; ++i)
      store(narrowed<Number>(from[i]), rows + static_cast<size_t>(i) * stride, swap);
    return 0;
  });
}

at::Tensor as_columns(const at::Tensor& values) {
  return values.dim() == 1 ? values.unsqueeze(1) : values;
}

}  // namespace serpentine
