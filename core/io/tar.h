// The members of a tar file, found without reading their data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/io/bytes.h"

namespace serpentine {

struct TarMember {
  std::string name;
  uint64_t offset = 0, size = 0;  // of its data in the file
};

struct TarList {
  std::vector<TarMember> members;  // regular files, in the file's order
  std::string fault;               // where reading stopped and why, or ""
};

/// Reads the headers (POSIX ustar and pax, GNU long names and large sizes). A damaged or cut file
/// gives the members before the damage. Throws when not even the first header is one of tar.
TarList list_tar(const InputFile& file);

}  // namespace serpentine
