#include "vision/local_directions.h"

#include <cstdlib>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {

std::string directions_scan(const std::vector<std::string>& directions) {
  std::string parts;
  for (const std::string& direction : directions) {
    const bool flip = direction.ends_with("_flip");
    const std::string base = flip ? direction.substr(0, direction.size() - 5) : direction;
    std::string part;
    if (base == "h" || base == "v") {
      part = base == "h" ? "{type: raster}" : "{type: raster, columns: true}";
      if (flip) part = "{type: reversed, inner: " + part + "}";
    } else {
      const int64_t side = base.size() > 1 && base[0] == 'w' ? std::atoll(base.c_str() + 1) : 0;
      SERPENTINE_CHECK(
          side > 0, "directions",
          "must be h, v, or w with the side of a window, each perhaps with _flip; got '", direction,
          "'");
      part = "{type: window, size: " + std::to_string(side) + (flip ? ", flip: true}" : "}");
    }
    parts += (parts.empty() ? "" : ", ") + part;
  }
  return "{type: stack, parts: [" + parts + "]}";
}

torch::Tensor published_columns(const torch::Tensor& y, int64_t height, int64_t width) {
  const auto sequence = y.unflatten(1, {height, width}).transpose(1, 2).flatten(1, 2);
  return sequence.unflatten(1, {height, width}).transpose(1, 2).flatten(1, 2);
}

}  // namespace serpentine
