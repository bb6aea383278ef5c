// Instead of openslide_slide.cpp in a build without OpenSlide: TIFF and pictures still open.
#include "pathology/slide_formats.h"

namespace serpentine {

std::string openslide_version() { return ""; }

std::shared_ptr<Slide> open_with_openslide(const std::string&, const SlideOptions&, bool) {
  return nullptr;
}

}  // namespace serpentine
