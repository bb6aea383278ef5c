// Line after line, as text is read: rows or columns of an image, a volume, a slide's tiles, points.
#include "core/check.h"
#include "scans/cells.h"

namespace serpentine {
namespace {

struct RasterOptions : CellOptions {
  bool columns = false;
  std::string axes;
  void fields(Fields& f) {
    CellOptions::fields(f);
    f("columns", columns, "column after column instead of row after row");
    f("axes", axes, "which axis changes fastest, next and last, as zxy; instead of columns",
      {.choices = {"", "xy", "yx", "xyz", "xzy", "yxz", "yzx", "zxy", "zyx"}});
  }
};

class Raster : public CellStrategy {
 public:
  explicit Raster(const RasterOptions& options)
      : CellStrategy(options.cell), columns_(options.columns), axes_(options.axes) {}
  int64_t num_branches() const override { return 1; }

 protected:
  std::vector<at::Tensor> keys(const Cells& cells) const override {
    if (axes_.empty()) return {raster_key(cells, cells.axes(columns_))};
    SERPENTINE_CHECK(axes_.size() == static_cast<size_t>(cells.index.size(-1)), "raster", "axes '",
                     axes_, "' does not fit tokens with ", cells.index.size(-1), " coordinates");
    return {raster_key(cells, axes_)};
  }

 private:
  bool columns_;
  std::string axes_;
};

}  // namespace

void add_raster(Registry<Serialization>& all) {
  add_strategy<Raster, RasterOptions>(all, "raster");
}

}  // namespace serpentine
