// Whole files, unpacked when they are gzip.
#pragma once

#include <cstdint>
#include <string>

namespace serpentine {

/// The file's bytes; gzip is unpacked, whatever the name. Throws std::runtime_error with the path
/// and the cause: missing, a folder, cut short, damaged, or more than `most` bytes.
std::string read_unpacked(const std::string& path, uint64_t most = uint64_t{1} << 36);

}  // namespace serpentine
