// A file in memory that holds the fuzzer's bytes, for readers that take a path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <sys/mman.h>
#include <unistd.h>

namespace serpentine {

class Scratch {
 public:
  Scratch() : file_(::memfd_create("fuzz", 0)), path_("/proc/self/fd/" + std::to_string(file_)) {}
  ~Scratch() { ::close(file_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  /// Replaces the content; false when the system refuses.
  bool fill(const void* data, size_t size) const {
    return ::ftruncate(file_, 0) == 0 &&
           ::pwrite(file_, data, size, 0) == static_cast<ssize_t>(size);
  }
  const std::string& path() const { return path_; }

 private:
  int file_;
  std::string path_;
};

}  // namespace serpentine
