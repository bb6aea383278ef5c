// What the first bytes of a picture say, without decoding it. Needs no OpenCV.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace serpentine {

struct PictureHeader {
  std::string kind;  // "JPEG", "PNG", "TIFF", "BMP", "WebP", "PNM", or "": none of them
  int64_t width = 0, height = 0;  // 0 where these bytes do not tell
};

/// Told by content, never by a name; a few dozen bytes are enough for the kind.
PictureHeader picture_header(std::string_view bytes);

/// Whether a JPEG has its end mark. Decoders fill what is missing with grey and say nothing.
bool jpeg_is_whole(std::string_view bytes);

}  // namespace serpentine
