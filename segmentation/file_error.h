// The error of a file that cannot be used, and what an error says.
#pragma once

#include <exception>
#include <filesystem>
#include <stdexcept>
#include <string>

#include <c10/util/Exception.h>

namespace serpentine {

/// Throws std::runtime_error "FILE: why".
[[noreturn]] inline void fail_file(const std::filesystem::path& file, const std::string& why) {
  throw std::runtime_error(file.string() + ": " + why);
}

/// An error's sentence, without the trace that LibTorch's carry.
inline std::string reason_of(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  return torch_error ? torch_error->what_without_backtrace() : error.what();
}

}  // namespace serpentine
