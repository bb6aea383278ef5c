// Pictures in a build without OpenCV: every function says how to get it.
#include <stdexcept>

#include "core/io/image.h"

namespace serpentine {
namespace {

[[noreturn]] void missing() {
  throw std::runtime_error(
      "pictures cannot be read or written: this build has no OpenCV (install libopencv-dev and "
      "configure with -DSERPENTINE_OPENCV=ON)");
}

}  // namespace

bool images_available() { return false; }
torch::Tensor read_image(const std::filesystem::path&, Pixels, int64_t) { missing(); }
torch::Tensor decode_image(std::string_view, const std::string&, Pixels, int64_t) { missing(); }
void write_image(const std::filesystem::path&, const torch::Tensor&) { missing(); }
std::string encode_image(const torch::Tensor&, const std::string&, int) { missing(); }
torch::Tensor resize_image(const torch::Tensor&, int64_t, int64_t, Resampling) { missing(); }
void draw_text(torch::Tensor&, int64_t, int64_t, const std::string&, Colour, double) { missing(); }
void draw_rectangle(torch::Tensor&, int64_t, int64_t, int64_t, int64_t, Colour, int) { missing(); }
void draw_line(torch::Tensor&, int64_t, int64_t, int64_t, int64_t, Colour, int) { missing(); }
torch::Tensor contact_sheet(const std::vector<torch::Tensor>&, const std::vector<std::string>&,
                            int64_t, int64_t) {
  missing();
}
torch::Tensor colour_map(const torch::Tensor&, const std::string&) { missing(); }

}  // namespace serpentine
