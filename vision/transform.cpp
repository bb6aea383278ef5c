#include "vision/transform.h"

#include <algorithm>
#include <cmath>

#include <torch/torch.h>

namespace serpentine {
namespace {

torch::Tensor column(const std::vector<double>& values) {
  return torch::tensor(values, torch::kFloat32).view({-1, 1, 1});
}

int64_t rounded_size(double value) { return std::max<int64_t>(1, std::llround(value)); }

}  // namespace

torch::Tensor planes_of(const torch::Tensor& picture, int64_t channels) {
  auto planes = picture.permute({2, 0, 1});
  if (planes.size(0) == channels) return planes;
  if (channels == 3) return planes.expand({3, -1, -1});
  const auto share = torch::tensor({0.299f, 0.587f, 0.114f}).view({3, 1, 1});
  return (planes.to(torch::kFloat32) * share).sum(0, true).round_().to(torch::kUInt8);
}

torch::Tensor resized(const torch::Tensor& image, int64_t height, int64_t width, bool bicubic) {
  if (image.size(1) == height && image.size(2) == width) return image;
  const auto one = image.unsqueeze(0);
  const std::vector<int64_t> size = {height, width};
  const auto out = bicubic ? at::_upsample_bicubic2d_aa(one, size, /*align_corners=*/false)
                           : at::_upsample_bilinear2d_aa(one, size, /*align_corners=*/false);
  return out.squeeze(0);
}

torch::Tensor to_unit(const torch::Tensor& image) {
  return image.to(torch::kFloat32).mul_(1.0 / 255);
}

torch::Tensor normalised(const torch::Tensor& image, const ImageView& view) {
  return (image - column(view.mean)).div_(column(view.deviation));
}

torch::Tensor centre_view(const torch::Tensor& picture, const ImageView& view) {
  const auto planes = planes_of(picture, view.channels);
  const auto of = [](int64_t n) { return static_cast<double>(n); };
  const double factor =
      std::max(of(view.height) / of(planes.size(1)), of(view.width) / of(planes.size(2)));
  // the crop of the picture that becomes the view: cutting before scaling costs less than after
  const double side = view.crop_ratio / factor;
  const int64_t height = std::min(planes.size(1), rounded_size(of(view.height) * side));
  const int64_t width = std::min(planes.size(2), rounded_size(of(view.width) * side));
  const int64_t top = (planes.size(1) - height) / 2, left = (planes.size(2) - width) / 2;
  const auto crop = planes.slice(1, top, top + height).slice(2, left, left + width);
  return resized(crop, view.height, view.width, view.bicubic);
}

torch::Tensor to_picture(const torch::Tensor& image, const ImageView& view) {
  const auto unit =
      image.to(torch::kCPU, torch::kFloat32) * column(view.deviation) + column(view.mean);
  const auto bytes = (unit.clamp(0, 1) * 255).round().to(torch::kUInt8).permute({1, 2, 0});
  return bytes.expand({-1, -1, 3}).contiguous();
}

}  // namespace serpentine
