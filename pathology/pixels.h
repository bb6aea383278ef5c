// Pixels of slide libraries as those of pictures. Without LibTorch, so that it compiles fast.
#pragma once

#include <cstddef>
#include <cstdint>

namespace serpentine {

/// Pre-multiplied ARGB over white: `count` pixels to 3 bytes each. ycc: the three colours are Y, Cb
/// and Cr.
void argb_over_white(const uint32_t* argb, size_t count, uint8_t* rgb, bool ycc = false);

/// Y, Cb, Cr of JFIF to R, G, B, in place.
void ycc_to_rgb(uint8_t* pixels, size_t count);

}  // namespace serpentine
