#include "pointcloud/point_order.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "core/check.h"
#include "scans/cells.h"

namespace serpentine {
namespace {

constexpr int64_t kFixedDepth = kCellBits;  // levels of a curve that does not know the batch

at::Tensor key_of(const Cells& cells, const std::string& name, bool published) {
  const bool transposed = name.ends_with("-trans");
  const std::string curve = transposed ? name.substr(0, name.rfind('-')) : name;
  const Cells turned = transposed ? exchanged(cells) : cells;
  if (curve == "z") return morton_key(turned);
  if (curve == "hilbert") return hilbert_key(turned, published ? 0 : kFixedDepth);
  return snake_key(cells, name, published ? SnakeRule::kPublished : SnakeRule::kPaper);
}

}  // namespace

std::vector<std::string> point_orders() {
  return {"xyz", "xzy", "yxz", "yzx", "zxy", "zyx", "z", "z-trans", "hilbert", "hilbert-trans"};
}

at::Tensor point_walk(const at::Tensor& points, const std::string& name,
                      const PointOrderOptions& options) {
  const auto known = point_orders();
  SERPENTINE_CHECK(std::find(known.begin(), known.end(), name) != known.end(), "point order",
                   "there is no order '", name, "'; known are ", known);
  TokenLayout layout;
  layout.coords = points.detach();
  layout.num_tokens = points.size(1);
  layout.device = points.device();
  const Cells cells = cells_of(layout, options.cell);
  return sorted_walk(key_of(cells, name, options.published), layout);
}

at::Tensor as_they_lie(const at::Tensor& points) {
  return at::arange(points.size(1), points.options().dtype(at::kLong)).expand({points.size(0), -1});
}

ScanOrder walk_order(const at::Tensor& walk, int64_t windows, int64_t ends) {
  SERPENTINE_CHECK(walk.dim() == 2 && windows >= 1 && walk.size(1) % windows == 0, "point order",
                   "a walk [B, N] must fill its ", windows, " windows, got ", walk.sizes());
  const int64_t batch = walk.size(0), points = walk.size(1), inside = points / windows;
  const auto rows = at::arange(2 * windows * ends, walk.options())
                        .add(points)
                        .view({1, windows, 2 * ends})
                        .expand({batch, -1, -1});
  const auto tokens = at::cat({rows.narrow(2, 0, ends), walk.reshape({batch, windows, inside}),
                               rows.narrow(2, ends, ends)},
                              2)
                          .flatten(1);
  const auto offsets = at::arange(windows + 1, at::kLong) * (inside + 2 * ends);
  const int64_t visits = 1;
  return make_order(tokens, offsets, at::zeros({windows}, at::kLong), tokens.size(1), visits);
}

}  // namespace serpentine
