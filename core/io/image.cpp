// Pictures through OpenCV; core/io/image.h says what each function promises.
#include "core/io/image.h"

#include <fstream>
#include <iterator>
#include <stdexcept>

#include <torch/torch.h>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "core/check.h"
#include "core/io/atomic_file.h"
#include "core/io/picture_header.h"

namespace serpentine {
namespace {

int cv_type(const torch::Tensor& picture) {
  const int channels = static_cast<int>(picture.size(2));
  return picture.scalar_type() == torch::kUInt16  ? CV_MAKETYPE(CV_16U, channels)
         : picture.scalar_type() == torch::kFloat ? CV_MAKETYPE(CV_32F, channels)
                                                  : CV_MAKETYPE(CV_8U, channels);
}

/// A view of the tensor's memory; the tensor must stay alive and contiguous.
cv::Mat view(const torch::Tensor& picture) {
  TORCH_CHECK(picture.dim() == 3 && picture.is_contiguous(),
              "picture: expected a contiguous [H, W, C], got ", picture.sizes());
  return {static_cast<int>(picture.size(0)), static_cast<int>(picture.size(1)), cv_type(picture),
          picture.data_ptr()};
}

torch::Tensor tensor_of(const cv::Mat& mat) {
  const auto type = mat.depth() == CV_16U   ? torch::kUInt16
                    : mat.depth() == CV_32F ? torch::kFloat
                                            : torch::kUInt8;
  auto out = torch::empty({mat.rows, mat.cols, mat.channels()}, type);
  auto target = view(out);
  mat.copyTo(target);
  return out;
}

/// OpenCV keeps blue first; every picture of ours keeps red first. The swap is its own inverse.
cv::Mat swapped(const cv::Mat& mat) {
  if (mat.channels() < 3) return mat;
  cv::Mat out;  // never the source: cvtColor would write into it
  cv::cvtColor(mat, out, mat.channels() == 3 ? cv::COLOR_BGR2RGB : cv::COLOR_BGRA2RGBA);
  return out;
}

cv::Mat eight_bits(const cv::Mat& mat) {
  if (mat.depth() == CV_8U) return mat;
  cv::Mat out;
  if (mat.depth() == CV_16U) {
    mat.convertTo(out, CV_8U, 1.0 / 257.0);
  } else {  // floating point files: the whole range
    cv::normalize(mat, out, 0, 255, cv::NORM_MINMAX, CV_8U);
  }
  return out;
}

cv::Mat over_white(const cv::Mat& rgba) {
  std::vector<cv::Mat> planes;
  cv::split(rgba, planes);
  cv::Mat alpha;
  planes[3].convertTo(alpha, CV_32F, 1.0 / 255.0);
  for (int c = 0; c < 3; ++c) {
    cv::Mat plane;
    planes[c].convertTo(plane, CV_32F);
    plane = plane.mul(alpha) + 255.0 * (1.0 - alpha);
    plane.convertTo(planes[c], CV_8U);
  }
  planes.pop_back();
  cv::Mat out;
  cv::merge(planes, out);
  return out;
}

cv::Mat decode(std::string_view bytes, int flags, const std::string& name) {
  cv::Mat mat;
  try {
    const cv::Mat buffer(1, static_cast<int>(bytes.size()), CV_8U, const_cast<char*>(bytes.data()));
    mat = cv::imdecode(buffer, flags);
  } catch (const cv::Exception& error) {
    throw std::runtime_error(name + ": cannot be decoded (" + error.err + ")");
  }
  if (mat.empty()) {
    throw std::runtime_error(name +
                             ": not a readable JPEG, PNG, TIFF, BMP, WebP or PNM picture "
                             "(damaged, cut short or of another kind)");
  }
  return mat;
}

/// Throws for what a decoder would get wrong without a word, or only after taking all memory.
PictureHeader checked_header(std::string_view bytes, const std::string& name) {
  if (bytes.empty()) throw std::runtime_error(name + ": the file is empty");
  PictureHeader header = picture_header(bytes);
  if (header.kind.empty())
    throw std::runtime_error(name + ": is no JPEG, PNG, TIFF, BMP, WebP or PNM picture");
  if (header.width > 0 && header.height > kMostPixels / header.width) {
    throw std::runtime_error(name + ": has " + std::to_string(header.width) + " x " +
                             std::to_string(header.height) + " pixels, more than " +
                             std::to_string(kMostPixels));
  }
  if (header.kind == "JPEG" && !jpeg_is_whole(bytes))
    throw std::runtime_error(name + ": the JPEG data end early; the file is cut off");
  return header;
}

int jpeg_flags(const PictureHeader& header, int64_t least_side) {
  const int64_t side = std::min(header.width, header.height);
  if (least_side <= 0 || side < 2 * least_side) return cv::IMREAD_COLOR;
  return side >= 8 * least_side   ? cv::IMREAD_REDUCED_COLOR_8
         : side >= 4 * least_side ? cv::IMREAD_REDUCED_COLOR_4
                                  : cv::IMREAD_REDUCED_COLOR_2;
}

}  // namespace

bool images_available() { return true; }

torch::Tensor decode_image(std::string_view bytes, const std::string& name, Pixels pixels,
                           int64_t least_side) {
  const PictureHeader header = checked_header(bytes, name);
  if (pixels == Pixels::kKeep) {
    return tensor_of(swapped(decode(bytes, cv::IMREAD_UNCHANGED, name)));
  }
  cv::Mat mat;
  if (header.kind == "JPEG") {  // never has alpha
    mat = eight_bits(decode(bytes, jpeg_flags(header, least_side), name));
  } else {
    // IMREAD_UNCHANGED ignores EXIF, the flags below honour it; alpha exists only without EXIF
    mat = decode(bytes, cv::IMREAD_UNCHANGED, name);
    mat = mat.channels() == 4
              ? over_white(eight_bits(mat))
              : eight_bits(decode(bytes, cv::IMREAD_ANYDEPTH | cv::IMREAD_COLOR, name));
  }
  if (pixels == Pixels::kGrey) {
    cv::Mat grey;
    cv::cvtColor(mat, grey, cv::COLOR_BGR2GRAY);
    return tensor_of(grey);
  }
  return tensor_of(swapped(mat));
}

torch::Tensor read_image(const std::filesystem::path& file, Pixels pixels, int64_t least_side) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw std::runtime_error(file.string() + ": cannot be opened");
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  return decode_image(bytes, file.string(), pixels, least_side);
}

std::string encode_image(const torch::Tensor& picture, const std::string& format, int quality) {
  std::vector<uchar> bytes;
  const std::vector<int> options = format == "jpg" || format == "jpeg"
                                       ? std::vector<int>{cv::IMWRITE_JPEG_QUALITY, quality}
                                       : std::vector<int>{};
  const auto contiguous = picture.contiguous();
  if (!cv::imencode("." + format, swapped(view(contiguous)), bytes, options)) {
    throw std::runtime_error("write_image: cannot encode as " + format);
  }
  return {bytes.begin(), bytes.end()};
}

void write_image(const std::filesystem::path& file, const torch::Tensor& picture) {
  auto format = file.extension().string();
  if (!format.empty()) format.erase(0, 1);
  const auto bytes = encode_image(picture, format);
  write_atomically(file.string(), bytes);
}

torch::Tensor resize_image(const torch::Tensor& picture, int64_t height, int64_t width,
                           Resampling how) {
  static constexpr int kFlags[] = {cv::INTER_NEAREST, cv::INTER_LINEAR, cv::INTER_CUBIC,
                                   cv::INTER_AREA};
  const auto contiguous = picture.contiguous();
  cv::Mat out;
  cv::resize(view(contiguous), out, cv::Size(static_cast<int>(width), static_cast<int>(height)), 0,
             0, kFlags[static_cast<int>(how)]);
  return tensor_of(out);
}

void draw_text(torch::Tensor& picture, int64_t x, int64_t y_baseline, const std::string& text,
               Colour colour, double scale) {
  auto mat = view(picture);
  cv::putText(mat, text, cv::Point(static_cast<int>(x), static_cast<int>(y_baseline)),
              cv::FONT_HERSHEY_SIMPLEX, scale, cv::Scalar(colour[0], colour[1], colour[2]), 1,
              cv::LINE_AA);
}

void draw_rectangle(torch::Tensor& picture, int64_t x, int64_t y, int64_t width, int64_t height,
                    Colour colour, int thickness) {
  auto mat = view(picture);
  cv::rectangle(mat,
                cv::Rect(static_cast<int>(x), static_cast<int>(y), static_cast<int>(width),
                         static_cast<int>(height)),
                cv::Scalar(colour[0], colour[1], colour[2]), thickness);
}

void draw_line(torch::Tensor& picture, int64_t x0, int64_t y0, int64_t x1, int64_t y1,
               Colour colour, int thickness) {
  auto mat = view(picture);
  cv::line(mat, cv::Point(static_cast<int>(x0), static_cast<int>(y0)),
           cv::Point(static_cast<int>(x1), static_cast<int>(y1)),
           cv::Scalar(colour[0], colour[1], colour[2]), thickness, cv::LINE_AA);
}

torch::Tensor contact_sheet(const std::vector<torch::Tensor>& pictures,
                            const std::vector<std::string>& captions, int64_t columns,
                            int64_t tile) {
  constexpr int64_t kMargin = 6, kCaption = 18;
  const auto count = static_cast<int64_t>(pictures.size());
  columns = std::max<int64_t>(1, std::min(columns, count));
  const int64_t rows = std::max<int64_t>(1, (count + columns - 1) / columns);
  auto sheet = torch::full(
      {rows * (tile + kCaption + kMargin) + kMargin, columns * (tile + kMargin) + kMargin, 3}, 255,
      torch::kUInt8);
  for (int64_t i = 0; i < count; ++i) {
    auto picture = pictures[static_cast<size_t>(i)];
    if (picture.size(2) == 1) picture = picture.expand({-1, -1, 3}).contiguous();
    picture = picture.slice(2, 0, 3).contiguous();
    const double ratio =
        static_cast<double>(tile) / static_cast<double>(std::max(picture.size(0), picture.size(1)));
    const auto side = [&](int64_t n) {
      return std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(n) * ratio + 0.5));
    };
    const auto small = resize_image(picture, side(picture.size(0)), side(picture.size(1)),
                                    ratio < 1 ? Resampling::kArea : Resampling::kNearest);
    const int64_t x = kMargin + i % columns * (tile + kMargin);
    const int64_t y = kMargin + i / columns * (tile + kCaption + kMargin);
    sheet.slice(0, y, y + small.size(0)).slice(1, x, x + small.size(1)).copy_(small);
    if (static_cast<size_t>(i) < captions.size()) {
      draw_text(sheet, x, y + tile + kCaption - 5, captions[static_cast<size_t>(i)], {30, 30, 30},
                0.38);
    }
  }
  return sheet;
}

torch::Tensor colour_map(const torch::Tensor& values, const std::string& map) {
  TORCH_CHECK(values.dim() == 2, "colour_map: values must be [H, W], got ", values.sizes());
  const auto grey = values.detach().to(torch::kCPU, torch::kFloat).nan_to_num(0.0);
  const auto bytes = (grey.clamp(0, 1) * 255).round().to(torch::kUInt8).unsqueeze(-1).contiguous();
  cv::Mat coloured;
  cv::applyColorMap(view(bytes), coloured,
                    map == "viridis" ? cv::COLORMAP_VIRIDIS : cv::COLORMAP_TURBO);
  return tensor_of(swapped(coloured));
}

}  // namespace serpentine
