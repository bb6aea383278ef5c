#include "pointcloud/lzf.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr size_t kLiterals = 32;       // at most, of one run
constexpr size_t kFarthest = 1 << 13;  // back
constexpr size_t kLongest = 264;       // of one match
constexpr size_t kHashBits = 14;

uint32_t three(const char* bytes) {
  const auto byte = [&](int i) {
    return static_cast<uint32_t>(static_cast<unsigned char>(bytes[i]));
  };
  return byte(0) << 16U | byte(1) << 8U | byte(2);
}

void append_literals(std::string& out, std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size(), kLiterals);
    out += static_cast<char>(count - 1);
    out += bytes.substr(0, count);
    bytes.remove_prefix(count);
  }
}

void append_match(std::string& out, size_t back, size_t length) {
  const size_t distance = back - 1, code = length - 2;
  if (code < 7) {
    out += static_cast<char>(code << 5U | distance >> 8U);
  } else {
    out += static_cast<char>(7U << 5U | distance >> 8U);
    out += static_cast<char>(code - 7);
  }
  out += static_cast<char>(distance & 255U);
}

}  // namespace

std::string lzf_unpack(std::string_view packed, size_t size, const std::string& who) {
  std::string out;
  size_t at = 0;
  const auto next = [&] {
    SERPENTINE_CHECK(at < packed.size(), who, "the compressed data end at byte ", at,
                     " of theirs, after ", out.size(), " of ", size, " bytes");
    return static_cast<size_t>(static_cast<unsigned char>(packed[at++]));
  };
  while (at < packed.size()) {
    const size_t control = next();
    if (control < kLiterals) {
      const size_t count = control + 1;
      SERPENTINE_CHECK(count <= packed.size() - at, who, "the compressed data end at byte ",
                       packed.size(), " of theirs, within a run");
      out += packed.substr(at, count);
      at += count;
    } else {
      size_t length = control >> 5U;
      if (length == 7) length += next();
      const size_t back = ((control & 31U) << 8U) + next() + 1;
      SERPENTINE_CHECK(back <= out.size(), who, "the compressed data are damaged at byte ", at,
                       " of theirs");
      // a match may reach into what it writes
      for (size_t i = 0; i < length + 2; ++i) out += out[out.size() - back];
    }
    SERPENTINE_CHECK(out.size() <= size, who, "the compressed data hold more than the ", size,
                     " bytes that the header says");
  }
  SERPENTINE_CHECK(out.size() == size, who, "the compressed data hold ", out.size(), " bytes, not ",
                   size);
  return out;
}

std::string lzf_pack(std::string_view bytes) {
  std::string out;
  std::array<size_t, size_t{1} << kHashBits> last{};
  last.fill(bytes.size());
  size_t begin = 0, at = 0;
  while (at + 3 <= bytes.size()) {
    const uint32_t value = three(bytes.data() + at);
    size_t& seen = last[(value * 2654435761U) >> (32 - kHashBits)];
    const size_t from = seen;
    seen = at;
    if (from >= at || at - from > kFarthest || three(bytes.data() + from) != value) {
      ++at;
      continue;
    }
    size_t length = 3;
    const size_t most = std::min(kLongest, bytes.size() - at);
    while (length < most && bytes[from + length] == bytes[at + length]) ++length;
    append_literals(out, bytes.substr(begin, at - begin));
    append_match(out, at - from, length);
    at += length;
    begin = at;
  }
  append_literals(out, bytes.substr(begin));
  return out;
}

}  // namespace serpentine
