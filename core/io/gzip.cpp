#include "core/io/gzip.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <stdexcept>

#include <zlib.h>

namespace serpentine {

std::string read_unpacked(const std::string& path, uint64_t most) {
  if (path.empty()) throw std::runtime_error("no file was named: the path is empty");
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    throw std::runtime_error(path + ": is a folder, not a file");
  errno = 0;
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file)
    throw std::runtime_error(path + ": cannot be opened: " + std::strerror(errno ? errno : ENOMEM));
  std::string bytes;
  std::string block(1 << 20, '\0');
  int count = 0;
  while ((count = gzread(file.get(), block.data(), static_cast<unsigned>(block.size()))) > 0) {
    if (bytes.size() + static_cast<size_t>(count) > most)
      throw std::runtime_error(path + ": holds more than " + std::to_string(most) + " bytes");
    bytes.append(block, 0, static_cast<size_t>(count));
  }
  int code = Z_OK;
  const char* message = gzerror(file.get(), &code);
  if (code == Z_BUF_ERROR)
    throw std::runtime_error(path + ": the gzip data ends early; the file is truncated");
  if (code == Z_ERRNO) throw std::runtime_error(path + ": cannot be read: " + std::strerror(errno));
  if (code < 0) throw std::runtime_error(path + ": the gzip data is damaged: " + message);
  return bytes;
}

}  // namespace serpentine
