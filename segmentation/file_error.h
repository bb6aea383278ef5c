// The error of a file that cannot be used.
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>

namespace serpentine {

/// Throws std::runtime_error "FILE: why".
[[noreturn]] inline void fail_file(const std::filesystem::path& file, const std::string& why) {
  throw std::runtime_error(file.string() + ": " + why);
}

}  // namespace serpentine
