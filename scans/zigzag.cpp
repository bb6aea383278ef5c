// One continuous walk: rows there and back, columns up and down, or diagonals to and fro.
//
// Rows and columns from four corners: Hu et al., "ZigMa", arXiv 2403.13802.
#include <ATen/ATen.h>

#include "scans/cells.h"

namespace serpentine {
namespace {

struct ZigzagOptions : CellOptions {
  std::string along = "rows", mirror;
  void fields(Fields& f) {
    CellOptions::fields(f);
    f("along", along, "rows, columns or diagonals", {.choices = {"rows", "columns", "diagonals"}});
    f("mirror", mirror, "axes to begin at their other end: x for the right, y for the bottom",
      {.choices = {"", "x", "y", "xy"}});
  }
};

class Zigzag : public CellStrategy {
 public:
  explicit Zigzag(const ZigzagOptions& options) : CellStrategy(options.cell), options_(options) {}
  int64_t num_branches() const override { return 1; }

 protected:
  std::vector<at::Tensor> keys(const Cells& from_top_left) const override {
    const Cells cells = mirrored(from_top_left, options_.mirror);
    if (options_.along != "diagonals")
      return {snake_key(cells, cells.axes(options_.along == "columns"))};
    const at::Tensor x = cells.axis('x'), y = cells.axis('y'), diagonal = x + y;
    return {diagonal * (cells.size('x') + cells.size('y')) + at::where(diagonal % 2 == 1, y, x)};
  }

 private:
  ZigzagOptions options_;
};

}  // namespace

void add_zigzag(Registry<Serialization>& all) {
  add_strategy<Zigzag, ZigzagOptions>(all, "zigzag");
}

}  // namespace serpentine
