// Tiles of a slide at a physical resolution: which, where, and reading them with many threads.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include <torch/types.h>

#include "core/config.h"
#include "pathology/slide.h"
#include "pathology/tissue.h"

namespace serpentine {

struct TileOptions {
  double mpp = 0.5;          // micrometres of a tile's pixel
  double downsample = 0;     // above 0: level-0 pixels of a tile's pixel instead of mpp
  int64_t size = 256;        // pixels of a tile's side
  int64_t overlap = 0;       // pixels that neighbours share
  double min_tissue = 0.25;  // least share of a tile that is tissue
  void fields(Fields& f);
};

/// Tiles of one slide. Their corners are level-0 pixels.
struct TileGrid {
  int64_t size = 0;         // pixels of a tile as encoders see it
  int64_t size_level0 = 0;  // level-0 pixels along a tile
  int64_t step_level0 = 0;  // between neighbours
  int64_t overlap = 0;      // pixels of a tile
  int64_t level = 0;        // that is read
  int64_t size_read = 0;    // pixels of that level along a tile
  double mpp = 0;           // micrometres of a tile's pixel, 0 if unknown
  torch::Tensor coords;     // int64 [T, 2], x and y, row by row
};

/// The lattice covers the slide: tiles of the right and lower edge may stick out, white there; what
/// sticks out is no tissue. Throws when the resolution is asked for in micrometres and the slide's
/// is unknown.
TileGrid plan_tiles(const Slide& slide, const Tissue& tissue, const TileOptions& options);

enum class TileState : uint8_t {
  kGood,
  kCoarser,     // its own level is damaged: taken from a coarser one
  kUnreadable,  // damaged on every level: a white picture
};

/// uint8 [size, size, 3]. Never throws for damage in the file.
torch::Tensor read_tile(const Slide& slide, const TileGrid& grid, int64_t x, int64_t y,
                        TileState& state);

struct TileBatch {
  int64_t first = 0;       // index of its first tile
  torch::Tensor pictures;  // uint8 [B, size, size, 3], when asked for
  std::vector<TileState> states;
  std::vector<double> sharpness;  // when asked for
};

struct TileStreamOptions {
  int64_t threads = 2;     // that read and decode
  int64_t batch = 32;      // tiles of a batch
  int64_t ahead = 4;       // batches that may be under way or wait
  bool sharpness = false;  // measure it
  bool pictures = true;    // false: only states and sharpness are wanted
};

/// All tiles of a grid in order, read ahead by threads. The slide and the grid must outlive it.
class TileStream {
 public:
  TileStream(const Slide& slide, const TileGrid& grid, TileStreamOptions options);
  ~TileStream();
  TileStream(const TileStream&) = delete;
  TileStream& operator=(const TileStream&) = delete;

  /// Nothing at the end. Rethrows what is not damage of the file, as a lack of memory.
  std::optional<TileBatch> next();
  /// The most that its pictures take.
  static int64_t memory(const TileGrid& grid, const TileStreamOptions& options);

 private:
  void work();
  TileBatch make(int64_t batch) const;

  const Slide& slide_;
  const TileGrid& grid_;
  TileStreamOptions options_;
  int64_t batches_ = 0;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t claimed_ = 0, taken_ = 0;
  bool stopping_ = false;
  struct Made {
    TileBatch batch;
    std::exception_ptr error;
  };
  std::map<int64_t, Made> made_;
};

}  // namespace serpentine
