// Reading the members of a zip file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct zip;

namespace serpentine {

/// An open zip file. Errors are c10::Error that name the file and the member.
class ZipReader {
 public:
  explicit ZipReader(const std::string& path);
  ~ZipReader();
  ZipReader(const ZipReader&) = delete;
  ZipReader& operator=(const ZipReader&) = delete;

  /// In the file's order.
  const std::vector<std::string>& names() const { return names_; }
  bool has(const std::string& name) const;
  /// The unpacked bytes; checks the member's CRC, and that no small file claims a huge member.
  std::string read(const std::string& name) const;
  uint64_t file_size() const { return file_size_; }

 private:
  std::string path_;
  zip* archive_ = nullptr;
  uint64_t file_size_ = 0;
  std::vector<std::string> names_;
};

}  // namespace serpentine
