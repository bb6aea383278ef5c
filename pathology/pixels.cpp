#include "pathology/pixels.h"

#include <algorithm>
#include <cmath>

namespace serpentine {

void argb_over_white(const uint32_t* argb, size_t count, uint8_t* rgb, bool ycc) {
  for (size_t i = 0; i < count; ++i) {
    const uint32_t pixel = argb[i], rest = 255U - (pixel >> 24U);
    const auto over = [&](uint32_t colour) {
      return static_cast<uint8_t>(std::min(255U, (colour & 255U) + rest));
    };
    rgb[3 * i] = over(pixel >> 16U);
    rgb[3 * i + 1] = over(pixel >> 8U);
    rgb[3 * i + 2] = over(pixel);
    if (ycc && rest == 0) ycc_to_rgb(rgb + 3 * i, 1);  // what is outside is white already
  }
}

void ycc_to_rgb(uint8_t* pixels, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    uint8_t* at = pixels + 3 * i;
    const double y = at[0], blue = at[1] - 128.0, red = at[2] - 128.0;
    const auto byte = [](double value) {
      return static_cast<uint8_t>(std::lround(std::clamp(value, 0.0, 255.0)));
    };
    at[0] = byte(y + 1.402 * red);
    at[1] = byte(y - 0.344136 * blue - 0.714136 * red);
    at[2] = byte(y + 1.772 * blue);
  }
}

}  // namespace serpentine
