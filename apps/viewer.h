// A local web viewer of slides and predictions.
//
//   /                      the page                      /api/slides     what there is
//   /dz/N/L/C_R.jpg        DeepZoom tile of slide N      /heat/N.png     values of its heat
//   /dz/N.dzi              DeepZoom description          /tile/N/K.jpg   its K-th top tile
//   /file/N/NAME           one of the prediction's files
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "pathology/slide.h"

namespace serpentine {

struct ViewerOptions {
  std::string folder;              // searched for prediction.json, and for slides
  std::string host = "127.0.0.1";  // an address of this machine
  int64_t port = 8080;             // 0: a free one
  SlideOptions slide;
  /// Called once the port is open.
  std::function<void(const std::string& url)> ready;
};

/// What the viewer shows of one slide.
struct ViewedSlide {
  std::string name, slide_path;
  std::string folder;  // of its prediction, "" without
};

/// Predictions below a folder, then slides that have none. Sorted by name.
std::vector<ViewedSlide> find_viewed(const std::string& folder);

/// Serves until SIGINT or SIGTERM. Throws when the port cannot be had.
void serve_viewer(const ViewerOptions& options);
bool viewer_available();

/// The page itself (apps/viewer.html).
const char* viewer_page();

}  // namespace serpentine
