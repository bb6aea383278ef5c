// A file that grows by whole records.
#pragma once

#include <string>

namespace serpentine {

/// Appends; each record reaches the system before append() returns. Errors are c10::Error.
class AppendFile {
 public:
  explicit AppendFile(std::string path);
  ~AppendFile();
  AppendFile(AppendFile&& other) noexcept;
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  void append(const std::string& bytes);

 private:
  std::string path_;
  int file_ = -1;
};

}  // namespace serpentine
