// Reading NumPy's .npy and .npz files, writing .npy. The format: numpy/lib/_format_impl.py,
// versions 1 to 3.
#pragma once

#include <string>
#include <string_view>

#include "core/io/state_dict.h"

namespace serpentine {

/// One array as a row-major CPU tensor. Unsigned 16 and 32 bits widen to int32 and int64.
/// Throws c10::Error with file and cause; object arrays are refused.
torch::Tensor read_npy(const std::string& path);

/// The arrays of an archive, in its order, named without `.npy`; compressed or not.
StateDict read_npz(const std::string& path);

/// Writes an array atomically: float16/32/64, uint8, int8/16/32/64 or bool, version 1.0.
void write_npy(const std::string& path, const torch::Tensor& array);

/// An .npy file in memory; `who` begins the errors.
torch::Tensor parse_npy(std::string_view bytes, const std::string& who);

}  // namespace serpentine
