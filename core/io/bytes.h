// Little-endian numbers in byte buffers, and reading a file at an offset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace serpentine {

/// Reads a little-endian number; the caller has checked that its bytes exist.
template <class Number>
Number load_little(const void* bytes) {
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian");
  Number value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

template <class Number>
void append_little(std::string& bytes, Number value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

/// An open file that is read at offsets. Errors are c10::Error that name the file.
class InputFile {
 public:
  explicit InputFile(std::string path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  /// Fills `data` from `offset`; throws when the file ends before.
  void read(void* data, size_t size, uint64_t offset) const;
  std::string read_text(size_t size, uint64_t offset) const;
  std::string read_all() const { return read_text(size_, 0); }
  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int file_ = -1;
  uint64_t size_ = 0;
};

/// The number of bytes of a contiguous tensor; false when it does not fit 63 bits or an extent is
/// negative.
template <class Shape>
bool checked_bytes(const Shape& shape, size_t item_size, int64_t& bytes) {
  bytes = static_cast<int64_t>(item_size);
  bool empty = false;
  for (const int64_t extent : shape) {
    if (extent < 0) return false;
    if (extent == 0) {
      empty = true;  // the other extents must fit all the same: torch multiplies them for strides
    } else if (__builtin_mul_overflow(bytes, extent, &bytes)) {
      return false;
    }
  }
  if (empty) bytes = 0;
  return true;
}

}  // namespace serpentine
