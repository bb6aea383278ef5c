// Along a Hilbert curve: neighbours on the walk are neighbours in the image, volume or cloud.
//
// Skilling, "Programming the Hilbert curve", AIP Conf. Proc. 707 (2004). Trans-Hilbert, with x and
// y exchanged: Liang et al., "PointMamba", arXiv 2402.10739.
#include <ATen/ATen.h>

#include "scans/cells.h"
#include "scans/curve_device.h"

namespace serpentine {

at::Tensor hilbert_key(const Cells& cells, int64_t depth) {
  if (cuda::takes_cells(cells)) return cuda::hilbert_key(cells, depth);
  const int64_t dims = cells.index.size(-1), levels = depth > 0 ? depth : kCellBits;
  const at::Tensor most = cells.extent.max() - 1;
  std::vector<at::Tensor> at = cells.index.unbind(-1);

  // undo the turns of the curve from the coarsest level down; a level above the deepest cell turns
  // nothing, so that the depth need not be known on the host
  for (int64_t bit = levels - 1; bit >= 1; --bit) {
    const int64_t side = int64_t{1} << bit;
    const at::Tensor below =
        depth > 0 ? at::full_like(most, side - 1)
                  : at::where(most >= side, at::full_like(most, side - 1), at::zeros_like(most));
    for (int64_t i = 0; i < dims; ++i) {
      const at::Tensor set = at[i].bitwise_right_shift(bit).bitwise_and(1);
      const at::Tensor differ = (at[0] ^ at[i]) & (below * (1 - set));
      at[0] = at[0] ^ differ ^ (below * set);
      if (i > 0) at[i] = at[i] ^ differ;
    }
  }

  // Gray code: first across the axes, then the parity of the last axis' higher bits
  for (int64_t i = 1; i < dims; ++i) at[i] = at[i] ^ at[i - 1];
  at::Tensor parity = at[dims - 1].bitwise_right_shift(1);
  for (int64_t shift = 1; shift < kCellBits; shift *= 2)
    parity = parity ^ parity.bitwise_right_shift(shift);
  for (at::Tensor& axis : at) axis = axis ^ parity;
  return morton_key({at::stack(at, -1), cells.extent});
}

namespace {

struct HilbertOptions : CellOptions {
  bool transposed = false;
  int64_t depth = 0;
  void fields(Fields& f) {
    CellOptions::fields(f);
    f("transposed", transposed, "exchange x and y");
    f("depth", depth,
      "levels of the curve; 0: as many as the batch needs, as published, so that a cloud's order "
      "can change with its batch",
      {.least = 0, .most = kCellBits});
  }
};

class Hilbert : public CellStrategy {
 public:
  explicit Hilbert(const HilbertOptions& options) : CellStrategy(options.cell), options_(options) {}
  int64_t num_branches() const override { return 1; }

 protected:
  std::vector<at::Tensor> keys(const Cells& cells) const override {
    return {hilbert_key(options_.transposed ? exchanged(cells) : cells, options_.depth)};
  }

 private:
  HilbertOptions options_;
};

}  // namespace

void add_hilbert(Registry<Serialization>& all) {
  add_strategy<Hilbert, HilbertOptions>(all, "hilbert");
}

}  // namespace serpentine
