// Instead of tiff_pyramid.cpp in a build without libtiff.
#include <stdexcept>

#include "pathology/heatmap.h"

namespace serpentine {

void write_pyramid(const std::string& path, int64_t, int64_t, double, const std::string&,
                   const PartView&, const std::function<void(int64_t, int64_t)>&) {
  throw std::runtime_error(path +
                           ": pyramids need libtiff (install libtiff-dev and configure with "
                           "-DSERPENTINE_LIBTIFF=ON)");
}

}  // namespace serpentine
