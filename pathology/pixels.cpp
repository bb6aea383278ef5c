#include "pathology/pixels.h"

#include <algorithm>

namespace serpentine {

void argb_over_white(const uint32_t* argb, size_t count, uint8_t* rgb) {
  for (size_t i = 0; i < count; ++i) {
    const uint32_t pixel = argb[i], rest = 255U - (pixel >> 24U);
    const auto over = [&](uint32_t colour) {
      return static_cast<uint8_t>(std::min(255U, (colour & 255U) + rest));
    };
    rgb[3 * i] = over(pixel >> 16U);
    rgb[3 * i + 1] = over(pixel >> 8U);
    rgb[3 * i + 2] = over(pixel);
  }
}

}  // namespace serpentine
