// An ordinary picture as a slide of one level, held in memory.
#include <algorithm>
#include <filesystem>
#include <stdexcept>

#include <torch/torch.h>

#include "core/io/image.h"
#include "pathology/slide_formats.h"

namespace serpentine {
namespace {

class PictureSlide : public Slide {
 public:
  PictureSlide(const std::string& path, const SlideOptions& options) : picture_(read_image(path)) {
    path_ = path;
    format_ = "picture";
    levels_.push_back({picture_.size(1), picture_.size(0), 1});
    const std::string end = std::filesystem::path(path).extension().string();
    if (end == ".svs" || end == ".ndpi" || end == ".scn" || end == ".mrxs" || end == ".bif") {
      remark_ = "the file is an ordinary picture under the name of a slide";
    }
    find_mpp(options);
  }

  torch::Tensor read(int64_t x, int64_t y, int64_t, int64_t width, int64_t height) const override {
    auto out = torch::full({height, width, 3}, 255, torch::kUInt8);
    const int64_t x0 = std::max<int64_t>(0, x), y0 = std::max<int64_t>(0, y);
    const int64_t x1 = std::min(picture_.size(1), x + width);
    const int64_t y1 = std::min(picture_.size(0), y + height);
    if (x1 > x0 && y1 > y0) {
      out.slice(0, y0 - y, y1 - y)
          .slice(1, x0 - x, x1 - x)
          .copy_(picture_.slice(0, y0, y1).slice(1, x0, x1));
    }
    return out;
  }

 private:
  torch::Tensor picture_;  // uint8 [height, width, 3]
};

}  // namespace

std::shared_ptr<Slide> open_as_picture(const std::string& path, const SlideOptions& options) {
  return std::make_shared<PictureSlide>(path, options);
}

}  // namespace serpentine
