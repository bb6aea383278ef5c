// Line after line, as text is read: rows or columns of an image, a volume, a slide's tiles, points.
#include "scans/cells.h"

namespace serpentine {
namespace {

struct RasterOptions : CellOptions {
  bool columns = false;
  void fields(Fields& f) {
    CellOptions::fields(f);
    f("columns", columns, "column after column instead of row after row");
  }
};

class Raster : public CellStrategy {
 public:
  explicit Raster(const RasterOptions& options)
      : CellStrategy(options.cell), columns_(options.columns) {}
  int64_t num_branches() const override { return 1; }

 protected:
  std::vector<at::Tensor> keys(const Cells& cells) const override {
    return {raster_key(cells, cells.axes(columns_))};
  }

 private:
  bool columns_;
};

}  // namespace

void add_raster(Registry<Serialization>& all) {
  add_strategy<Raster, RasterOptions>(all, "raster");
}

}  // namespace serpentine
