// Pictures: files to tensors and back, resizing, and the few marks that reports draw.
//
// A picture is a contiguous tensor [H, W, C], uint8 (or uint16 where a file holds 16 bits and
// kKeep asks for them), C 1 (grey), 3 (RGB) or 4 (RGBA). Everything here needs OpenCV
// (SERPENTINE_OPENCV); a build without throws one sentence that says so. Thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <torch/types.h>

namespace serpentine {

/// Whether this build reads pictures.
bool images_available();

enum class Pixels {
  kRgb,   // uint8 [H, W, 3]; 16 bits scaled to 8, alpha blended over white, CMYK converted
  kGrey,  // uint8 [H, W, 1]
  kKeep,  // as the file has them: 1, 3 or 4 channels, uint8 or uint16
};

/// More pixels than this are refused before they are decoded: 16,384 x 16,384.
inline constexpr int64_t kMostPixels = int64_t{1} << 28;

/// Decodes JPEG, PNG, TIFF, BMP, WebP or PNM by their content, never by a name; EXIF orientation
/// is applied (not with kKeep). Throws std::runtime_error "FILE: why" for anything else, for more
/// than kMostPixels and for files that end early. `least_side`: a JPEG may come at a half, a
/// quarter or an eighth of its size as long as its shorter side keeps so many pixels, which is
/// several times faster; 0: as it is.
torch::Tensor read_image(const std::filesystem::path& file, Pixels pixels = Pixels::kRgb,
                         int64_t least_side = 0);
/// The same of bytes in memory; `name` begins the error text.
torch::Tensor decode_image(std::string_view bytes, const std::string& name,
                           Pixels pixels = Pixels::kRgb, int64_t least_side = 0);

/// Writes atomically; the format follows the extension (png, jpg, tif). uint8 or uint16.
void write_image(const std::filesystem::path& file, const torch::Tensor& picture);
/// Encodes as `format` ("png", "jpg") at a JPEG quality of 0 to 100.
std::string encode_image(const torch::Tensor& picture, const std::string& format, int quality = 90);

enum class Resampling { kNearest, kLinear, kCubic, kArea };
/// [height, width, C] of the same type; pixel centres lie at half integers.
torch::Tensor resize_image(const torch::Tensor& picture, int64_t height, int64_t width,
                           Resampling how = Resampling::kLinear);

using Colour = std::array<uint8_t, 3>;
/// Marks drawn in place on a uint8 RGB picture; coordinates in pixels, (0, 0) top left.
void draw_text(torch::Tensor& picture, int64_t x, int64_t y_baseline, const std::string& text,
               Colour colour, double scale = 0.5);
void draw_rectangle(torch::Tensor& picture, int64_t x, int64_t y, int64_t width, int64_t height,
                    Colour colour, int thickness = 1);
void draw_line(torch::Tensor& picture, int64_t x0, int64_t y0, int64_t x1, int64_t y1,
               Colour colour, int thickness = 1);

/// Pictures as a grid on white, each scaled to fit `tile` x `tile`, with its caption below.
torch::Tensor contact_sheet(const std::vector<torch::Tensor>& pictures,
                            const std::vector<std::string>& captions, int64_t columns,
                            int64_t tile = 160);

/// float [H, W] in [0, 1] through a perceptually even map (viridis or turbo): uint8 [H, W, 3].
torch::Tensor colour_map(const torch::Tensor& values, const std::string& map = "turbo");

}  // namespace serpentine
