// One TIFF file read block by block (tiles or strips) by several threads.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <torch/types.h>

namespace serpentine {

/// One picture of the file: a directory, or the n-th SubIFD of the first one.
struct TiffPicture {
  uint64_t offset = 0;  // of its directory in the file
  int64_t width = 0, height = 0;
  int64_t block_width = 0, block_height = 0;  // of a tile; of a strip: its width is the picture's
  bool tiled = false;
  bool rgb8 = false;   // decoded without conversion
  bool whole = false;  // this libtiff knows its codec, and no tile is missing
  std::string description;
};

class TiffFile {
 public:
  /// Throws std::runtime_error "FILE: why". strict: a block about whose contents its decoder warns
  /// counts as damaged, as for OpenSlide.
  explicit TiffFile(const std::string& path, bool strict = false);
  ~TiffFile();
  TiffFile(const TiffFile&) = delete;
  TiffFile& operator=(const TiffFile&) = delete;

  const std::vector<TiffPicture>& pictures() const { return pictures_; }
  /// Resolution and description of the first picture, under OpenSlide's names ("tiff.XResolution").
  const std::map<std::string, std::string>& properties() const { return properties_; }

  /// The block [block_height, block_width, 3] at (column, row) of blocks; what lies beyond the
  /// picture is white. The last 64 MB of decoded blocks are kept. Thread-safe.
  torch::Tensor block(size_t picture, int64_t column, int64_t row) const;

 private:
  struct Handle;
  std::unique_ptr<Handle> take() const;
  void give(std::unique_ptr<Handle> handle) const;
  void list_pictures();
  torch::Tensor decode(Handle& handle, const TiffPicture& picture, int64_t column,
                       int64_t row) const;

  std::string path_;
  bool strict_;
  std::vector<TiffPicture> pictures_;
  std::map<std::string, std::string> properties_;

  mutable std::mutex mutex_;  // of all below
  mutable std::vector<std::unique_ptr<Handle>> idle_;
  struct Kept {
    uint64_t key;
    torch::Tensor block;
  };
  mutable std::list<Kept> kept_;  // most recently used first
  mutable std::map<uint64_t, std::list<Kept>::iterator> places_;
  mutable int64_t kept_bytes_ = 0;
};

}  // namespace serpentine
