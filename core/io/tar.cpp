#include "core/io/tar.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string_view>

namespace serpentine {
namespace {

constexpr uint64_t kBlock = 512;
constexpr uint64_t kLongestName = 1 << 20;

/// A field's text up to its first zero byte.
std::string text_of(std::string_view field) {
  return std::string(field.substr(0, std::min(field.size(), field.find('\0'))));
}

/// Octal digits, or GNU's binary form, whose first bit is set.
std::optional<uint64_t> number_of(std::string_view field) {
  uint64_t value = 0;
  if ((static_cast<unsigned char>(field[0]) & 0x80u) != 0) {
    for (size_t i = 1; i < field.size(); ++i) {
      if (value >> 55 != 0) return std::nullopt;
      value = value << 8 | static_cast<unsigned char>(field[i]);
    }
    return value;
  }
  size_t at = 0;
  while (at < field.size() && field[at] == ' ') ++at;
  for (; at < field.size() && field[at] >= '0' && field[at] <= '7'; ++at) {
    if (value >> 60 != 0) return std::nullopt;
    value = value << 3 | static_cast<uint64_t>(field[at] - '0');
  }
  if (at < field.size() && field[at] != '\0' && field[at] != ' ') return std::nullopt;
  return value;
}

bool sum_fits(std::string_view header) {
  const auto stated = number_of(header.substr(148, 8));
  uint64_t sum = 0;
  for (size_t i = 0; i < kBlock; ++i)
    sum += i >= 148 && i < 156 ? static_cast<uint64_t>(' ') : static_cast<unsigned char>(header[i]);
  return stated && *stated == sum;
}

/// The value of `path=` in pax records ("LENGTH KEY=VALUE\n"), or "".
std::string pax_path(std::string_view records) {
  while (!records.empty()) {
    size_t length = 0, at = 0;
    for (; at < records.size() && records[at] >= '0' && records[at] <= '9' && length < kLongestName;
         ++at)
      length = length * 10 + static_cast<size_t>(records[at] - '0');
    if (length <= at + 1 || length > records.size()) return "";
    const std::string_view record = records.substr(at + 1, length - at - 2);
    if (record.substr(0, 5) == "path=") return std::string(record.substr(5));
    records.remove_prefix(length);
  }
  return "";
}

std::string name_of(std::string_view header) {
  const std::string name = text_of(header.substr(0, 100));
  const bool ustar = header.substr(257, 5) == "ustar" && header[262] == '\0';  // GNU has a space
  const std::string prefix = ustar ? text_of(header.substr(345, 155)) : "";
  return prefix.empty() ? name : prefix + "/" + name;
}

}  // namespace

TarList list_tar(const InputFile& file) {
  TarList list;
  std::string long_name;
  uint64_t at = 0;
  const auto stop = [&](const std::string& why) {
    if (list.members.empty() && at == 0) throw std::runtime_error(file.path() + ": " + why);
    list.fault = file.path() + ": " + why + " at byte " + std::to_string(at) +
                 "; what comes after is left out";
  };
  while (at < file.size()) {
    if (file.size() - at < kBlock) {
      stop("the tar file is cut off");
      return list;
    }
    const std::string header = file.read_text(kBlock, at);
    if (header.find_first_not_of('\0') == std::string::npos) return list;  // the end mark
    const auto size = number_of(std::string_view(header).substr(124, 12));
    if (!sum_fits(header) || !size) {
      stop("is not a tar file, or is damaged");
      return list;
    }
    const uint64_t data = at + kBlock;
    if (*size > file.size() - data) {
      stop("the tar file is cut off in '" + name_of(header) + "'");
      return list;
    }
    const char type = header[156];
    if (type == 'L' || type == 'x') {
      if (*size > kLongestName) {
        stop("a name is too long");
        return list;
      }
      const std::string text = file.read_text(*size, data);
      long_name = type == 'L' ? text_of(text) : pax_path(text);
    } else {
      if (type == '0' || type == '\0')
        list.members.push_back({long_name.empty() ? name_of(header) : long_name, data, *size});
      long_name.clear();
    }
    at = data + (*size + kBlock - 1) / kBlock * kBlock;
  }
  return list;
}

}  // namespace serpentine
