// The bundled slide, and damaged copies of it in a scratch folder.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <unistd.h>

#include "core/io/image.h"
#include "pathology/slide_formats.h"

namespace serpentine {

inline std::string sample_slide() {
  return std::string(SERPENTINE_SOURCE_DIR) + "/data/samples/slides/cmu-1-small-region.svs";
}

/// Without OpenSlide the same file is read by libtiff; without both there is nothing to test.
inline bool slides_readable() {
  return images_available() && (!openslide_version().empty() || libtiff_available());
}

class Scratch {
 public:
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "slides-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// The JPEG data of some tiles in the middle of the tissue replaced by zeros.
inline void write_damaged_slide(const std::string& path) {
  std::string bytes = bytes_of(sample_slide());
  bytes.replace(700000, 40000, 40000, '\0');
  write_bytes(path, bytes);
}

}  // namespace serpentine
