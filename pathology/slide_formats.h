// The readers behind open_slide, each with a stub for builds without its library.
#pragma once

#include <memory>
#include <string>

#include "pathology/slide.h"

namespace serpentine {

/// Null when OpenSlide is missing or does not know the file; throws when it knows it but cannot.
std::shared_ptr<Slide> open_with_openslide(const std::string& path, const SlideOptions& options);
/// "3.4.1", or "" where the library is missing.
std::string openslide_version();

/// Tiled or stripped TIFF and BigTIFF; levels as further directories or SubIFDs.
std::shared_ptr<Slide> open_with_libtiff(const std::string& path, const SlideOptions& options);
bool libtiff_available();

/// JPEG, PNG and what else core/io/image.h decodes; held in memory as a whole.
std::shared_ptr<Slide> open_as_picture(const std::string& path, const SlideOptions& options);

}  // namespace serpentine
