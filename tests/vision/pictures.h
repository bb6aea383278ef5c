// Small pictures in memory and in files, for the tests of vision.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include <torch/torch.h>

#include "core/io/image.h"

namespace serpentine {

/// uint8 [side, side, 3] in one colour with a darker corner, so that mirroring shows.
inline torch::Tensor flat_picture(int64_t side, int64_t red, int64_t green, int64_t blue) {
  auto picture = torch::empty({side, side, 3}, torch::kUInt8);
  picture.select(2, 0).fill_(red);
  picture.select(2, 1).fill_(green);
  picture.select(2, 2).fill_(blue);
  picture.slice(0, 0, side / 4).slice(1, 0, side / 4).fill_(10);
  return picture;
}

inline void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

inline void write_picture(const std::filesystem::path& path, const torch::Tensor& picture) {
  std::filesystem::create_directories(path.parent_path());
  write_image(path, picture);
}

/// A tar member: header and data, padded to whole blocks.
inline std::string tar_member(const std::string& name, const std::string& data) {
  std::string header(512, '\0');
  header.replace(0, name.size(), name);
  header.replace(100, 7, "0000644");
  char size[13];
  std::snprintf(size, sizeof size, "%011o", static_cast<unsigned>(data.size()));
  header.replace(124, 11, size);
  header.replace(148, 8, "        ");
  header[156] = '0';
  header.replace(257, 8,
                 std::string("ustar\0"
                             "00",
                             8));
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  char text[8];
  std::snprintf(text, sizeof text, "%06o", sum);
  header.replace(148, 7, std::string(text, 7));
  return header + data + std::string((512 - data.size() % 512) % 512, '\0');
}

/// An IDX file of bytes.
inline std::string idx_bytes(const torch::Tensor& values) {
  std::string bytes = {'\0', '\0', '\x08', static_cast<char>(values.dim())};
  for (const int64_t extent : values.sizes()) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(extent >> shift & 255);
  }
  const auto flat = values.to(torch::kUInt8).contiguous();
  bytes.append(static_cast<const char*>(flat.const_data_ptr()), static_cast<size_t>(flat.numel()));
  return bytes;
}

}  // namespace serpentine
