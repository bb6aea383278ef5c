// A scene's points sorted into square blocks, in files, so that a block's are read at once.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "pointcloud/segment_scene.h"

namespace serpentine {

/// Memory that is a file, or only memory. What was written stays if the process dies.
class MappedFile {
 public:
  /// path "": memory, zeros. Else a file of `bytes`: an old one of that size as it is, or zeros.
  MappedFile(const std::string& path, uint64_t bytes);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  char* data() const { return data_; }
  /// Whether a file of that size was there.
  bool old() const { return old_; }
  /// Waits until what was written is in the file, also if the power goes.
  void sync() const;

 private:
  std::string path_;
  char* data_ = nullptr;
  uint64_t bytes_ = 0;
  bool old_ = false;
};

struct BlockPoint {
  double place[3];
  int64_t row;  // in the scene
};

class SceneBlocks {
 public:
  using Cell = std::pair<int64_t, int64_t>;  // along x, along y

  /// Reads the scene three times: its bounds, the points of each block, their sorting. folder "":
  /// in memory. sorted: the files in the folder are whole, only the numbers of points are counted.
  /// If they are not whole after all, they are made again.
  SceneBlocks(const ScenePoints& scene, double side, const std::string& folder, bool sorted);

  const std::vector<Cell>& cells() const { return cells_; }  // with points, ascending
  /// Rows of the scene in a block, and the places of them and of what lies within `margin` around
  /// it: those of the block itself come first.
  struct Seen {
    std::vector<int64_t> rows;
    torch::Tensor places;  // float64 [n, 3], n at least rows.size()
  };
  Seen around(const Cell& cell, double margin) const;

 private:
  struct Range {
    int64_t first = 0, count = 0;
  };
  Cell cell_of(double x, double y) const;

  double side_;
  double least_x_ = 0, least_y_ = 0;
  std::vector<Cell> cells_;
  std::map<Cell, Range> ranges_;
  std::unique_ptr<MappedFile> points_;
};

}  // namespace serpentine
