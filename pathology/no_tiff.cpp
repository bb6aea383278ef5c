// Instead of tiff_slide.cpp in a build without libtiff: OpenCV reads small TIFF as pictures.
#include "pathology/slide_formats.h"

namespace serpentine {

bool libtiff_available() { return false; }

std::shared_ptr<Slide> open_with_libtiff(const std::string& path, const SlideOptions& options) {
  return open_as_picture(path, options);
}

std::shared_ptr<Slide> open_whole_tiles(const std::string&) { return nullptr; }

}  // namespace serpentine
