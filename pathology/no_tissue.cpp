// Instead of tissue.cpp in a build without OpenCV.
#include <stdexcept>

#include "pathology/tissue.h"

namespace serpentine {
namespace {

[[noreturn]] void missing() {
  throw std::runtime_error(
      "tissue cannot be found: this build has no OpenCV (install libopencv-imgcodecs-dev and "
      "configure with -DSERPENTINE_OPENCV=ON)");
}

}  // namespace

Tissue find_tissue(const torch::Tensor&, double, double, const TissueOptions&) { missing(); }
double sharpness(const torch::Tensor&) { missing(); }

}  // namespace serpentine
