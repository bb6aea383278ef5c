// Four walks whose steps all go to neighbours, with shared parameters: rows there and back, columns
// up and down, and both from their ends.
//
// Yang et al., "PlainMamba", arXiv 2403.17695.
#include "scans/cells.h"

namespace serpentine {
namespace {

class Continuous : public CellStrategy {
 public:
  explicit Continuous(const CellOptions& options) : CellStrategy(options.cell) {}
  int64_t num_branches() const override { return 1; }

 protected:
  std::vector<at::Tensor> keys(const Cells& cells) const override {
    const at::Tensor rows = snake_key(cells, cells.axes());
    const at::Tensor columns = snake_key(cells, cells.axes(true));
    return {rows, -rows, columns, -columns};
  }
};

}  // namespace

void add_continuous(Registry<Serialization>& all) {
  add_strategy<Continuous, CellOptions>(all, "continuous");
}

}  // namespace serpentine
