// Pixels of slide libraries as those of pictures. Without LibTorch, so that it compiles fast.
#pragma once

#include <cstddef>
#include <cstdint>

namespace serpentine {

/// Pre-multiplied ARGB over white: `count` pixels to 3 bytes each.
void argb_over_white(const uint32_t* argb, size_t count, uint8_t* rgb);

}  // namespace serpentine
