#include "core/io/text.h"

#include <cstdio>
#include <fstream>
#include <stdexcept>

#include "core/io/gzip.h"

namespace serpentine {
namespace {

// bytes of the UTF-8 character at `at`, or 0 if there is none (overlong forms and surrogates too)
size_t utf8_length(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const unsigned lead = byte(at), next = byte(at + 1);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xC0u) != 0x80u) return 0;
  }
  if ((lead == 0xE0 && next < 0xA0) || (lead == 0xED && next > 0x9F)) return 0;
  if ((lead == 0xF0 && next < 0x90) || (lead == 0xF4 && next > 0x8F)) return 0;
  return length;
}

}  // namespace

std::string read_text(const std::string& path) { return read_unpacked(path); }

bool file_begins_with(const std::string& path, std::string_view bytes) {
  std::ifstream file(path, std::ios::binary);
  std::string found(bytes.size(), '\0');
  return file.read(found.data(), static_cast<std::streamsize>(found.size())) && found == bytes;
}

void check_utf8(const std::string& path, std::string_view text) {
  if (text.substr(0, 2) == "\xFF\xFE" || text.substr(0, 2) == "\xFE\xFF") {
    throw std::runtime_error(path + ":1:1: the file is UTF-16; save it as UTF-8");
  }
  if (text.substr(0, 4) == "PAR1") {
    throw std::runtime_error(path +
                             ": this is a Parquet file, not text; convert it once: python3 -c "
                             "'import pandas; pandas.read_parquet(\"" +
                             path + "\").to_csv(\"table.csv.gz\", index=False)'");
  }
  for (size_t at = 0; at < text.size();) {
    if (text[at] == '\0')
      throw std::runtime_error(place_in(path, text, at) + ": a zero byte; this is not a text file");
    const size_t length = utf8_length(text, at);
    if (length == 0) {
      char hex[8];
      std::snprintf(hex, sizeof hex, "0x%02X",
                    static_cast<unsigned>(static_cast<unsigned char>(text[at])));
      throw std::runtime_error(place_in(path, text, at) + ": byte " + hex +
                               " is not UTF-8; save the file as UTF-8");
    }
    at += length;
  }
}

std::string place_in(const std::string& path, std::string_view text, size_t offset) {
  size_t line = 1, column = 1;
  for (size_t i = text.substr(0, 3) == "\xEF\xBB\xBF" ? 3 : 0; i < offset && i < text.size(); ++i) {
    const bool lone_return = text[i] == '\r' && (i + 1 >= text.size() || text[i + 1] != '\n');
    if (text[i] == '\n' || lone_return) {
      ++line;
      column = 1;
    } else if ((static_cast<unsigned char>(text[i]) & 0xC0u) != 0x80u) {
      ++column;
    }
  }
  return path + ":" + std::to_string(line) + ":" + std::to_string(column);
}

std::string quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text.substr(0, 40)) out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  return out + (text.size() > 40 ? "...'" : "'");
}

}  // namespace serpentine
