#include "core/io/bytes.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace serpentine {

InputFile::InputFile(std::string path) : path_(std::move(path)) {
  file_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  TORCH_CHECK(file_ >= 0, path_, " cannot be opened: ", std::strerror(errno));
  struct stat status = {};
  const bool known = ::fstat(file_, &status) == 0;
  if (!known || !S_ISREG(status.st_mode)) {
    ::close(file_);
    TORCH_CHECK(false, path_, " is not a regular file");
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

InputFile::~InputFile() { ::close(file_); }

void InputFile::read(void* data, size_t size, uint64_t offset) const {
  TORCH_CHECK(offset <= size_ && size <= size_ - offset, path_, " ends at byte ", size_,
              ", but bytes ", offset, " to ", offset + size, " were expected");
  char* next = static_cast<char*>(data);
  constexpr size_t kMost = size_t{1} << 30;  // Linux reads at most 2 GiB in one call
  while (size > 0) {
    const ssize_t got = ::pread(file_, next, std::min(size, kMost), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    TORCH_CHECK(got >= 0, path_, " cannot be read: ", std::strerror(errno));
    TORCH_CHECK(got > 0, path_, " became shorter while it was read");
    next += got;
    offset += static_cast<uint64_t>(got);
    size -= static_cast<size_t>(got);
  }
}

std::string InputFile::read_text(size_t size, uint64_t offset) const {
  TORCH_CHECK(offset <= size_ && size <= size_ - offset, path_, " ends at byte ", size_,
              ", but bytes ", offset, " to ", offset + size, " were expected");
  std::string text(size, '\0');
  read(text.data(), size, offset);
  return text;
}

}  // namespace serpentine
