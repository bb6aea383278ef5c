// Window after window of an image, and inside each row after row.
//
// Huang et al., "LocalMamba", arXiv 2403.09338; zero padding as in its program.
#include <ATen/ATen.h>

#include "scans/walks.h"

namespace serpentine {
namespace {

struct WindowOptions {
  int64_t size = 7;
  bool columns = false, flip = false;
  void fields(Fields& f) {
    f("size", size, "side of a window, in tokens", {.least = 1});
    f("columns", columns, "columns of windows, and inside each column after column");
    f("flip", flip, "the whole walk from its end");
  }
};

class Window : public GridStrategy {
 public:
  explicit Window(const WindowOptions& options) : options_(options) {}
  int64_t num_branches() const override { return 1; }

 protected:
  std::vector<at::Tensor> walks(const at::Tensor& grid) const override {
    const int64_t side = options_.size, height = grid.size(0), width = grid.size(1);
    const int64_t below = (side - height % side) % side, right = (side - width % side) % side;
    at::Tensor padded = at::constant_pad_nd(grid, {0, right, 0, below}, kPad);
    if (options_.columns) padded = padded.t();
    const at::Tensor walk =
        padded.unflatten(1, {-1, side}).unflatten(0, {-1, side}).transpose(1, 2);
    return {options_.flip ? walk.flatten().flip(0) : walk.flatten()};
  }

 private:
  WindowOptions options_;
};

}  // namespace

void add_window(Registry<Serialization>& all) {
  add_strategy<Window, WindowOptions>(all, "window");
}

}  // namespace serpentine
