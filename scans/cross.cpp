// Four walks over an image, each with its own parameters: rows, columns, and both from their ends.
//
// Liu et al., "VMamba", arXiv 2401.10166; the other routes are modes of its program.
#include "scans/cells.h"

namespace serpentine {
namespace {

struct CrossOptions : CellOptions {
  std::string routes = "cross";
  void fields(Fields& f) {
    CellOptions::fields(f);
    f("routes", routes,
      "cross; unidi: the rows four times; bidi: the rows twice, their reverses twice; rot90: the "
      "rows of the image turned by 0, 90, 180, 270 degrees",
      {.choices = {"cross", "unidi", "bidi", "rot90"}});
  }
};

class Cross : public CellStrategy {
 public:
  explicit Cross(const CrossOptions& options)
      : CellStrategy(options.cell), routes_(options.routes) {}
  int64_t num_branches() const override { return 4; }

 protected:
  std::vector<at::Tensor> keys(const Cells& cells) const override {
    const at::Tensor rows = raster_key(cells, cells.axes());
    const at::Tensor columns = raster_key(cells, cells.axes(true));
    if (routes_ == "unidi") return {rows, rows, rows, rows};
    if (routes_ == "bidi") return {rows, rows, -rows, -rows};
    if (routes_ == "rot90") {
      return {rows, raster_key(mirrored(cells, "x"), cells.axes(true)), -rows,
              raster_key(mirrored(cells, "y"), cells.axes(true))};
    }
    return {rows, columns, -rows, -columns};
  }

 private:
  std::string routes_;
};

}  // namespace

void add_cross(Registry<Serialization>& all) { add_strategy<Cross, CrossOptions>(all, "cross"); }

}  // namespace serpentine
