// A file that appears whole or not at all.
#pragma once

#include <cstddef>
#include <string>

namespace serpentine {

/// Collects bytes in a temporary file beside `path`; commit() syncs and renames it. A reader sees
/// the old file or the new one, also after a crash. Without commit() nothing changes.
/// Errors are c10::Error with one sentence: the file and the system's reason.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t size);
  void write(const std::string& text) { write(text.data(), text.size()); }
  void commit();

 private:
  [[noreturn]] void fail(int error);

  std::string path_, temporary_;
  int file_ = -1;
};

/// Writes `text` to `path` through an AtomicFile.
void write_atomically(const std::string& path, const std::string& text);

}  // namespace serpentine
