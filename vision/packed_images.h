// Readers of packed pictures: bytes in memory to tensors. They need no OpenCV.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <torch/types.h>

namespace serpentine {

/// An IDX file (LeCun's MNIST page): two zero bytes, the type, the number of axes, big-endian
/// extents, the values. uint8 only, whatever the shape. Throws with `who` and the cause.
torch::Tensor parse_idx(std::string_view bytes, const std::string& who);

/// Records of the binary CIFAR files: one label byte (CIFAR-100: a coarse, then a fine one), then
/// 1,024 values each of red, green and blue.
struct CifarRecords {
  torch::Tensor images;         // uint8 [M, 32, 32, 3]
  std::vector<int64_t> labels;  // of CIFAR-100 the fine ones unless `coarse`
};
CifarRecords parse_cifar(std::string_view bytes, int64_t label_bytes, bool coarse,
                         const std::string& who);

/// uint8 [M, H, W] or [M, H, W, 1 or 3] of a MedMNIST array -> [M, H, W, C].
torch::Tensor medmnist_images(const torch::Tensor& array, const std::string& who);

}  // namespace serpentine
