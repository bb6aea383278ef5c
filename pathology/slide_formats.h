// The readers behind open_slide, each with a stub for builds without its library.
#pragma once

#include <memory>
#include <string>

#include "pathology/slide.h"

namespace serpentine {

/// Null when OpenSlide is missing or does not know the file; throws when it knows it but cannot.
/// `direct`: level 0 of Aperio's JPEG tiles through libtiff, the same pixels in less time.
std::shared_ptr<Slide> open_with_openslide(const std::string& path, const SlideOptions& options,
                                           bool direct = true);
/// "3.4.1", or "" where the library is missing.
std::string openslide_version();

/// Tiled or stripped TIFF and BigTIFF; levels as further directories or SubIFDs.
std::shared_ptr<Slide> open_with_libtiff(const std::string& path, const SlideOptions& options);
bool libtiff_available();
/// The same of a scanner's TIFF, when level 0 has tiles that libtiff decodes to RGB and none is
/// missing; else null. Throws where libtiff cannot read the file.
std::shared_ptr<Slide> open_whole_tiles(const std::string& path);

/// JPEG, PNG and what else core/io/image.h decodes; held in memory as a whole.
std::shared_ptr<Slide> open_as_picture(const std::string& path, const SlideOptions& options);

}  // namespace serpentine
