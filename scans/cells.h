// Cells: where tokens lie on a grid, and the strategies that sort tokens by a key of their cell.
//
// One rule serves images and volumes (the grid is full), tiles of a slide (it has holes) and points
// (several may share a cell). B batch, T tokens, n axes: x column, y row, z slice.
#pragma once

#include <string>
#include <vector>

#include "scans/walks.h"

namespace serpentine {

struct Cells {
  at::Tensor index;   // int64 [T, n] or [B, T, n]: x, y (, z), in each sample from 0
  at::Tensor extent;  // int64 [n]: the number of cells along each axis, over the whole batch

  at::Tensor axis(char name) const;  // int64 [T] or [B, T]
  at::Tensor size(char name) const;  // int64 [], an extent

  /// "xy" or "xyz": x changes fastest. "yx" or "zyx" if `columns`.
  std::string axes(bool columns = false) const;
};

/// The cells of an image or volume; without one, those of the coordinates: floor(coords / side),
/// from each sample's least.
Cells cells_of(const TokenLayout& layout, double side);

/// The same cells counted from the other end of `axes`.
Cells mirrored(Cells cells, const std::string& axes);

/// The same cells with x and y exchanged.
Cells exchanged(const Cells& cells);

/// Line after line, each from its begin. axes: the fastest first, as "yx" for columns.
at::Tensor raster_key(const Cells& cells, const std::string& axes);

/// How the keys of Point Cloud Mamba's program differ from its paper.
enum class SnakeRule {
  kPaper,      // every second line, and every second plane, backwards
  kIntended,   // the program's formula: it counts one cell too few a line, so lines touch
  kPublished,  // what it computes: of the slower axes only the batch's largest index
};

/// Line after line, every second one from its end, so that steps go to neighbours.
at::Tensor snake_key(const Cells& cells, const std::string& axes,
                     SnakeRule rule = SnakeRule::kPaper);

/// The bits of the indices interleaved, x's first: Z-order.
at::Tensor morton_key(const Cells& cells);

/// The place along a Hilbert curve through 2^depth cells a side. depth 0: as many as the batch's
/// largest index needs, as published.
at::Tensor hilbert_key(const Cells& cells, int64_t depth = 0);

inline constexpr int64_t kCellBits = 20;  // of an index in a curve's key; 3 x 20 fit int64

/// The option of every strategy that sorts by cells.
struct CellOptions {
  double cell = 1;
  void fields(Fields& f);
};

/// Sorts tokens by keys of their cells; each key is a walk. Images' orders are kept; others are
/// made on the coordinates' device without waiting for it.
class CellStrategy : public Serialization {
 public:
  explicit CellStrategy(double cell) : cell_(cell) {}
  ScanOrder order(const TokenLayout& layout, const ScanContext& context) const final;

 protected:
  /// int64 [T] or [B, T] each. Fewer branches than keys: they share one branch's parameters.
  virtual std::vector<at::Tensor> keys(const Cells& cells) const = 0;

 private:
  double cell_;
  OrderCache cache_;
};

}  // namespace serpentine
