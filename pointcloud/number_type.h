// Numbers as files store them, and columns of them in rows of bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <ATen/core/Tensor.h>

namespace serpentine {

enum class NumberType { kI8, kU8, kI16, kU16, kI32, kU32, kI64, kU64, kF32, kF64 };

size_t bytes_of(NumberType type);

/// The type of tensors that hold such numbers: unsigned 16 and 32 bits widen to int32 and int64,
/// unsigned 64 bits keep their bits in int64.
at::ScalarType tensor_type(NumberType type);

/// The stored type that holds a tensor's numbers as they are.
NumberType stored_type(at::ScalarType type);

/// One number.
double read_number(const char* bytes, NumberType type, bool swap);

/// Copies one number a row. rows: `count` rows, `stride` bytes apart, the first number at `rows`.
/// swap: the file has the other byte order. Returns [count] of tensor_type(type).
at::Tensor read_column(const char* rows, size_t stride, int64_t count, NumberType type, bool swap);

/// The way back. values: [count] of any type; numbers outside the stored type's range are clamped
/// to it, and numbers that are not finite become 0 in whole types.
void write_column(const at::Tensor& values, char* rows, size_t stride, NumberType type, bool swap);

/// [N] or [N, k] -> [N, k].
at::Tensor as_columns(const at::Tensor& values);

}  // namespace serpentine
