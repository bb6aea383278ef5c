#include "core/io/picture_header.h"

#include <algorithm>
#include <cstdlib>

namespace serpentine {
namespace {

unsigned byte(std::string_view bytes, size_t at) {
  return at < bytes.size() ? static_cast<unsigned char>(bytes[at]) : 0u;
}

uint32_t big(std::string_view bytes, size_t at, size_t count) {
  uint32_t value = 0;
  for (size_t i = 0; i < count; ++i) value = value << 8 | byte(bytes, at + i);
  return value;
}

uint32_t little(std::string_view bytes, size_t at, size_t count) {
  uint32_t value = 0;
  for (size_t i = count; i > 0; --i) value = value << 8 | byte(bytes, at + i - 1);
  return value;
}

bool starts(std::string_view bytes, std::string_view with) {
  return bytes.substr(0, with.size()) == with;
}

/// The offset behind the marker segment at `at`, or npos at the end.
size_t next_segment(std::string_view bytes, size_t at) {
  const size_t length = big(bytes, at + 2, 2);
  return at + 4 > bytes.size() || length < 2 ? std::string_view::npos : at + 2 + length;
}

bool frame_header(unsigned marker) {  // SOF0 to SOF15 without DHT, JPG and DAC
  return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

void read_jpeg(std::string_view bytes, PictureHeader& header) {
  for (size_t at = 2; at != std::string_view::npos && at + 4 <= bytes.size();) {
    if (byte(bytes, at) != 0xFF) return;
    const unsigned marker = byte(bytes, at + 1);
    if (marker == 0xFF) {  // a fill byte
      ++at;
      continue;
    }
    if (frame_header(marker)) {
      header.height = big(bytes, at + 5, 2);
      header.width = big(bytes, at + 7, 2);
      return;
    }
    if (marker == 0xDA || marker == 0xD9) return;
    at = next_segment(bytes, at);
  }
}

void read_tiff(std::string_view bytes, PictureHeader& header) {
  const bool small = byte(bytes, 0) == 'I';
  const auto number = [&](size_t at, size_t count) {
    return small ? little(bytes, at, count) : big(bytes, at, count);
  };
  if (number(2, 2) != 42) return;  // BigTIFF: known by its kind only
  const size_t directory = number(4, 4), entries = number(directory, 2);
  if (directory + 2 > bytes.size()) return;
  for (size_t i = 0; i < entries && directory + 14 + 12 * i <= bytes.size(); ++i) {
    const size_t entry = directory + 2 + 12 * i;
    const uint32_t tag = number(entry, 2), type = number(entry + 2, 2);
    const uint32_t value = number(entry + 8, type == 3 ? 2 : 4);
    if (tag == 256) header.width = value;
    if (tag == 257) header.height = value;
  }
}

void read_webp(std::string_view bytes, PictureHeader& header) {
  const std::string_view chunk = bytes.substr(std::min<size_t>(12, bytes.size()), 4);
  if (chunk == "VP8 ") {
    header.width = little(bytes, 26, 2) & 0x3FFFu;
    header.height = little(bytes, 28, 2) & 0x3FFFu;
  } else if (chunk == "VP8L") {
    const uint32_t packed = little(bytes, 21, 4);
    header.width = (packed & 0x3FFFu) + 1;
    header.height = (packed >> 14 & 0x3FFFu) + 1;
  } else if (chunk == "VP8X") {
    header.width = int64_t{little(bytes, 24, 3)} + 1;
    header.height = int64_t{little(bytes, 27, 3)} + 1;
  }
}

void read_pnm(std::string_view bytes, PictureHeader& header) {
  int64_t numbers[2] = {0, 0};
  size_t at = 2;
  for (int64_t& number : numbers) {
    while (at < bytes.size() && (byte(bytes, at) <= ' ' || bytes[at] == '#')) {
      if (bytes[at] == '#') {
        while (at < bytes.size() && bytes[at] != '\n') ++at;
      } else {
        ++at;
      }
    }
    for (; at < bytes.size() && bytes[at] >= '0' && bytes[at] <= '9' && number < (1 << 30); ++at)
      number = number * 10 + (bytes[at] - '0');
  }
  header.width = numbers[0];
  header.height = numbers[1];
}

}  // namespace

PictureHeader picture_header(std::string_view bytes) {
  PictureHeader header;
  if (starts(bytes, "\xFF\xD8\xFF")) {
    header.kind = "JPEG";
    read_jpeg(bytes, header);
  } else if (starts(bytes, "\x89PNG\r\n\x1A\n")) {
    header.kind = "PNG";
    header.width = big(bytes, 16, 4);
    header.height = big(bytes, 20, 4);
  } else if (starts(bytes, std::string_view("II*\0", 4)) ||
             starts(bytes, std::string_view("MM\0*", 4)) ||
             starts(bytes, std::string_view("II+\0", 4)) ||
             starts(bytes, std::string_view("MM\0+", 4))) {
    header.kind = "TIFF";
    read_tiff(bytes, header);
  } else if (starts(bytes, "BM") && bytes.size() >= 14) {
    header.kind = "BMP";
    header.width = std::abs(static_cast<int64_t>(static_cast<int32_t>(little(bytes, 18, 4))));
    header.height = std::abs(static_cast<int64_t>(static_cast<int32_t>(little(bytes, 22, 4))));
  } else if (starts(bytes, "RIFF") && bytes.size() >= 12 && bytes.substr(8, 4) == "WEBP") {
    header.kind = "WebP";
    read_webp(bytes, header);
  } else if (bytes.size() > 2 && bytes[0] == 'P' && bytes[1] >= '1' && bytes[1] <= '6' &&
             byte(bytes, 2) <= ' ') {
    header.kind = "PNM";
    read_pnm(bytes, header);
  }
  return header;
}

bool jpeg_is_whole(std::string_view bytes) {
  size_t at = 2;
  while (at != std::string_view::npos && at + 1 < bytes.size()) {
    if (byte(bytes, at) != 0xFF) {  // bytes between segments: look for the next marker
      at = bytes.find('\xFF', at);
      continue;
    }
    const unsigned marker = byte(bytes, at + 1);
    if (marker == 0xD9) return true;
    if (marker == 0xFF) {
      ++at;
    } else if (marker == 0 || marker == 1 || (marker >= 0xD0 && marker <= 0xD8)) {
      at += 2;  // a stuffed byte or a restart in the picture's data
    } else {
      at = next_segment(bytes, at);
    }
  }
  return false;
}

}  // namespace serpentine
