// Tiled and stripped TIFF as a slide: the first picture is level 0, smaller ones of the same shape
// are its levels, all others are associated pictures.
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <torch/torch.h>

#include "core/io/image.h"
#include "pathology/slide_formats.h"
#include "pathology/tiff_file.h"

namespace serpentine {
namespace {

/// Whether `other` is the same field of view at a lower resolution. Thumbnails of scanners are
/// also that, but in strips beside a tiled level 0.
bool is_level(const TiffPicture& first, const TiffPicture& other) {
  if (other.tiled != first.tiled || other.width >= first.width) return false;
  const double x = static_cast<double>(first.width) / static_cast<double>(other.width);
  const double y = static_cast<double>(first.height) / static_cast<double>(other.height);
  // one pixel of rounding on the smaller side
  return std::abs(x - y) <=
         std::max(x, y) / static_cast<double>(std::min(other.width, other.height)) + 0.01 * x;
}

class TiffSlide : public Slide {
 public:
  TiffSlide(const std::string& path, const SlideOptions& options, bool strict = false)
      : file_(path, strict) {
    path_ = path;
    format_ = "tiff";
    properties_ = file_.properties();
    const auto& pictures = file_.pictures();
    std::vector<size_t> order = {0};
    for (size_t i = 1; i < pictures.size(); ++i) {
      if (is_level(pictures[0], pictures[i])) {
        order.push_back(i);
      } else {
        name_associated(i);
      }
    }
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return pictures[a].width > pictures[b].width; });
    for (const size_t i : order) {
      const auto& picture = pictures[i];
      if (!levels_.empty() && picture.width == levels_.back().width) continue;
      const double x = static_cast<double>(pictures[0].width) / static_cast<double>(picture.width);
      const double y =
          static_cast<double>(pictures[0].height) / static_cast<double>(picture.height);
      levels_.push_back({picture.width, picture.height, (x + y) / 2});
      picture_of_level_.push_back(i);
    }
    find_mpp(options);
  }

  torch::Tensor read(int64_t x, int64_t y, int64_t level, int64_t width,
                     int64_t height) const override {
    const auto at = static_cast<size_t>(level);
    const double downsample = levels_.at(at).downsample;
    const auto in_level = [&](int64_t place) {
      return static_cast<int64_t>(std::floor(static_cast<double>(place) / downsample + 0.5));
    };
    return region(picture_of_level_[at], in_level(x), in_level(y), width, height);
  }

  const TiffPicture& first() const { return file_.pictures().front(); }

  std::vector<std::string> associated_names() const override {
    std::vector<std::string> names;
    for (const auto& [name, picture] : associated_) names.push_back(name);
    return names;
  }

  torch::Tensor associated(const std::string& name) const override {
    const auto found = associated_.find(name);
    if (found == associated_.end()) return Slide::associated(name);
    const auto& picture = file_.pictures()[found->second];
    return region(found->second, 0, 0, picture.width, picture.height);
  }

 private:
  /// Aperio's descriptions begin their second line with "label 415x422" or "macro 1280x431".
  void name_associated(size_t index) {
    const std::string& text = file_.pictures()[index].description;
    std::string name;
    for (const char* known : {"label", "macro", "thumbnail"}) {
      if (name.empty() && text.find(std::string("\n") + known) != std::string::npos) name = known;
    }
    if (name.empty()) {
      name = associated_.count("thumbnail") ? "picture " + std::to_string(index) : "thumbnail";
    }
    associated_.emplace(name, index);
  }

  torch::Tensor region(size_t index, int64_t x, int64_t y, int64_t width, int64_t height) const {
    const auto& picture = file_.pictures()[index];
    auto out = torch::full({height, width, 3}, 255, torch::kUInt8);
    const int64_t x1 = std::min(picture.width, x + width),
                  y1 = std::min(picture.height, y + height);
    const int64_t bw = picture.block_width, bh = picture.block_height;
    for (int64_t top = std::max<int64_t>(0, y); top < y1; top = (top / bh + 1) * bh) {
      const int64_t bottom = std::min(y1, (top / bh + 1) * bh);
      for (int64_t left = std::max<int64_t>(0, x); left < x1; left = (left / bw + 1) * bw) {
        const int64_t right = std::min(x1, (left / bw + 1) * bw);
        const auto block = file_.block(index, left / bw, top / bh);
        const auto* from = block.const_data_ptr<uint8_t>() + 3 * (top % bh * bw + left % bw);
        auto* to = out.mutable_data_ptr<uint8_t>() + 3 * ((top - y) * width + left - x);
        for (int64_t row = top; row < bottom; ++row, from += 3 * bw, to += 3 * width)
          std::copy_n(from, 3 * (right - left), to);
      }
    }
    return out;
  }

  TiffFile file_;
  std::vector<size_t> picture_of_level_;
  std::map<std::string, size_t> associated_;
};

}  // namespace

bool libtiff_available() { return true; }

std::shared_ptr<Slide> open_with_libtiff(const std::string& path, const SlideOptions& options) {
  return std::make_shared<TiffSlide>(path, options);
}

std::shared_ptr<Slide> open_whole_tiles(const std::string& path) {
  const auto slide = std::make_shared<TiffSlide>(path, SlideOptions{}, /*strict=*/true);
  return slide->first().rgb8 && slide->first().whole ? slide : nullptr;
}

}  // namespace serpentine
