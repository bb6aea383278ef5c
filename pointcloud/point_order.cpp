#include "pointcloud/point_order.h"

#include <algorithm>

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

}  // namespace serpentine
