#include "pathology/frame_colour.h"

#include <algorithm>
#include <fstream>
#include <string_view>

#include <torch/torch.h>

#include "core/io/image.h"
#include "pathology/pixels.h"

namespace serpentine {
namespace {

constexpr int64_t kFrameSearched = 4 << 20;  // bytes; the first frame lies behind the header

/// The first JFIF frame, or "".
std::string first_jfif(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes(static_cast<size_t>(kFrameSearched), '\0');
  file.read(bytes.data(), kFrameSearched);
  bytes.resize(static_cast<size_t>(std::max<std::streamsize>(0, file.gcount())));
  const auto begin = bytes.find(std::string_view("\xff\xd8\xff\xe0\x00\x10JFIF", 10));
  if (begin == std::string::npos) return "";
  const auto end = bytes.find(std::string_view("\xff\xd9", 2), begin);
  return end == std::string::npos ? "" : bytes.substr(begin, end + 2 - begin);
}

double colour_distance(const torch::Tensor& a, const torch::Tensor& b) {
  return (a.to(torch::kFloat) - b.to(torch::kFloat)).abs().mean().item<double>();
}

}  // namespace

bool frames_are_ycc(const std::string& path,
                    const std::function<torch::Tensor(int64_t width, int64_t height)>& corner) {
  const std::string frame = images_available() ? first_jfif(path) : "";
  if (frame.empty()) return false;
  try {
    const auto decoded = decode_image(frame, path);
    const auto seen = corner(decoded.size(1), decoded.size(0));
    auto converted = seen.clone();
    ycc_to_rgb(converted.data_ptr<uint8_t>(), static_cast<size_t>(converted.numel() / 3));
    return colour_distance(converted, decoded) + 8 < colour_distance(seen, decoded);
  } catch (const std::exception&) {  // a damaged frame says nothing
    return false;
  }
}

}  // namespace serpentine
