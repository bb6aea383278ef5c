// From a picture's bytes to what a model reads, on tensors: without OpenCV, the same everywhere.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <torch/types.h>

namespace serpentine {

/// The fixed part of the way: size, channels, and numbers to subtract and divide by.
struct ImageView {
  int64_t height = 224, width = 224, channels = 3;
  double crop_ratio = 0.875;  // side of the evaluation crop over the shorter side of the picture
  bool bicubic = false;
  std::vector<double> mean, deviation;  // [C], of values in [0, 1]
};

/// uint8 [H, W, 1 or 3] -> uint8 [C, H, W] with the wanted channels (luma of Rec. 601, or thrice).
torch::Tensor planes_of(const torch::Tensor& picture, int64_t channels);

/// [C, H, W] uint8 or float32 -> [C, height, width], antialiased when it shrinks.
torch::Tensor resized(const torch::Tensor& image, int64_t height, int64_t width, bool bicubic);

/// uint8 [C, H, W] or [B, C, H, W] -> float32 in [0, 1].
torch::Tensor to_unit(const torch::Tensor& image);

/// (image - mean) / deviation of [.., C, H, W].
torch::Tensor normalised(const torch::Tensor& image, const ImageView& view);

/// What evaluation sees: the picture scaled so that a crop of crop_ratio has the view's size, and
/// its centre. uint8 [H, W, C] -> uint8 [C, height, width].
torch::Tensor centre_view(const torch::Tensor& picture, const ImageView& view);

/// Undoes `normalised`: float32 [C, H, W] -> uint8 [H, W, 3], to look at.
torch::Tensor to_picture(const torch::Tensor& image, const ImageView& view);

}  // namespace serpentine
