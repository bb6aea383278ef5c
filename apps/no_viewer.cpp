// Instead of viewer.cpp in a build without cpp-httplib.
#include <stdexcept>

#include "apps/viewer.h"

namespace serpentine {

bool viewer_available() { return false; }

void serve_viewer(const ViewerOptions&) {
  throw std::runtime_error(
      "serve: this build has no cpp-httplib (install libcpp-httplib-dev and "
      "configure with -DSERPENTINE_VIEWER=ON)");
}

}  // namespace serpentine
