#include "vision/image_store.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <utility>

#include <torch/torch.h>

#include "core/check.h"
#include "core/io/image.h"
#include "core/io/picture_header.h"

namespace serpentine {
namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

}  // namespace

torch::Tensor ImageStore::pictures(const std::vector<int64_t>& indices) const {
  std::vector<torch::Tensor> all;
  for (const int64_t index : indices) all.push_back(picture(index));
  return torch::stack(all);
}

PackedImages::PackedImages(torch::Tensor images, std::string name)
    : images_(std::move(images)), name_(std::move(name)) {
  SERPENTINE_CHECK(images_.dim() == 4 && images_.scalar_type() == torch::kUInt8 &&
                       (images_.size(3) == 1 || images_.size(3) == 3),
                   name_, "pictures must be uint8 [M, H, W, 1 or 3], got ", images_.scalar_type(),
                   " ", images_.sizes());
}

torch::Tensor PackedImages::picture(int64_t index, int64_t) const { return images_[index]; }

std::string PackedImages::name(int64_t index) const {
  return name_ + "[" + std::to_string(index) + "]";
}

torch::Tensor PackedImages::pictures(const std::vector<int64_t>& indices) const {
  return images_.index_select(0, torch::tensor(indices, torch::kLong));
}

torch::Tensor FileImages::picture(int64_t index, int64_t least_side) const {
  return read_image(name(index), channels_ == 1 ? Pixels::kGrey : Pixels::kRgb, least_side);
}

void ImageFaults::report(const std::string& name, const std::string& why) {
  const std::lock_guard lock(mutex_);
  if (!names_.insert(name).second) return;
  if (first_.empty()) first_ = why;
  std::cerr << "left out   " << why << std::endl;
}

int64_t ImageFaults::count() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(names_.size());
}

std::string ImageFaults::note() const {
  const std::lock_guard lock(mutex_);
  if (names_.empty()) return "";
  return std::to_string(names_.size()) + (names_.size() == 1 ? " picture" : " pictures") +
         " cannot be read and are left out, the first: " + first_;
}

std::string split_name(const std::string& word) {
  const std::string name = lower(word);
  if (name == "train" || name == "training") return "train";
  if (name == "val" || name == "valid" || name == "validation" || name == "dev")
    return "validation";
  if (name == "test" || name == "testing") return "test";
  return "";
}

bool has_picture_extension(const std::string& path) {
  static constexpr std::array<const char*, 11> kKnown = {
      ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".ppm", ".pgm", ".pnm", ".pbm"};
  const std::string extension = lower(std::filesystem::path(path).extension().string());
  return std::find(kKnown.begin(), kKnown.end(), extension) != kKnown.end();
}

std::string fault_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return path + ": cannot be opened";
  char bytes[32];
  file.read(bytes, sizeof bytes);
  const auto got = static_cast<size_t>(file.gcount());
  if (got == 0) return path + ": the file is empty";
  if (picture_header(std::string_view(bytes, got)).kind.empty())
    return path + ": is no JPEG, PNG, TIFF, BMP, WebP or PNM picture";
  return "";
}

}  // namespace serpentine
