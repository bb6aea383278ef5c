// Along a Z curve: by quadrants (octants), quadrants of quadrants, and so on.
//
// Morton, "A computer oriented geodetic data base", IBM (1966). Trans-z exchanges x and y.
#include <ATen/ATen.h>

#include "scans/cells.h"
#include "scans/curve_device.h"

namespace serpentine {

at::Tensor morton_key(const Cells& cells) {
  if (cuda::takes_cells(cells)) return cuda::morton_key(cells);
  const int64_t dims = cells.index.size(-1);
  const auto options = cells.index.options();

  // bit b of axis i moves to place dims * b + (dims - 1 - i)
  const at::Tensor bit = at::arange(kCellBits, options);
  const at::Tensor place = bit * dims + at::arange(dims - 1, -1, -1, options).unsqueeze(1);
  return cells.index.unsqueeze(-1)
      .bitwise_right_shift(bit)
      .bitwise_and(1)
      .bitwise_left_shift(place)
      .sum(at::IntArrayRef{-2, -1});
}

namespace {

struct MortonOptions : CellOptions {
  bool transposed = false;
  void fields(Fields& f) {
    CellOptions::fields(f);
    f("transposed", transposed, "exchange x and y");
  }
};

class Morton : public CellStrategy {
 public:
  explicit Morton(const MortonOptions& options)
      : CellStrategy(options.cell), transposed_(options.transposed) {}
  int64_t num_branches() const override { return 1; }

 protected:
  std::vector<at::Tensor> keys(const Cells& cells) const override {
    return {morton_key(transposed_ ? exchanged(cells) : cells)};
  }

 private:
  bool transposed_;
};

}  // namespace

void add_morton(Registry<Serialization>& all) {
  add_strategy<Morton, MortonOptions>(all, "morton");
}

}  // namespace serpentine
