// Convolutions and instance norm of two or three spatial axes as one module type each.
//
// Keys as torch.nn's: weight, bias. B batch, C channels; the spatial axes are H, W or D, H, W.
#pragma once

#include <string>
#include <vector>

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

namespace serpentine {

/// One number an axis: 2 or 3 of them.
using Extent = std::vector<int64_t>;

/// "1x3x3" or "3" (all axes alike) as an extent of `dims` positive numbers; `who` begins the error.
Extent parse_extent(const std::string& who, const std::string& text, int64_t dims);
/// "1x3x3"
std::string extent_text(const Extent& extent);

/// Zero padding keeps the size at stride 1 and odd kernels: (kernel - 1) / 2 on both sides.
class ConvNdImpl : public torch::nn::Module {
 public:
  ConvNdImpl(int64_t in, int64_t out, Extent kernel, Extent stride, bool with_bias);
  torch::Tensor forward(const torch::Tensor& x);  // [B, C, ...] -> [B, C', ...]
  void reset();                                   // torch's own initialisation

  torch::Tensor weight, bias;  // [C', C, k...], [C'] or undefined
  Extent kernel, stride, padding;
};
TORCH_MODULE(ConvNd);

/// Kernel and stride are equal: every output pixel comes from one input pixel.
class ExpandNdImpl : public torch::nn::Module {
 public:
  ExpandNdImpl(int64_t in, int64_t out, Extent stride, bool with_bias);
  torch::Tensor forward(const torch::Tensor& x);

  torch::Tensor weight, bias;  // [C, C', s...], [C'] or undefined
  Extent stride;
};
TORCH_MODULE(ExpandNd);

/// Each channel of each example to mean 0 and variance 1 over its pixels, then scale and shift.
class InstanceNormImpl : public torch::nn::Module {
 public:
  explicit InstanceNormImpl(int64_t channels, double eps = 1e-5);
  /// slope: of the leaky ReLU that follows; 1: none.
  torch::Tensor forward(const torch::Tensor& x, double slope = 1);

  torch::Tensor weight, bias;  // [C]
  double eps;
};
TORCH_MODULE(InstanceNorm);

/// The same without scale and shift.
torch::Tensor plain_instance_norm(const torch::Tensor& x, double slope = 1);

/// Kaiming's normal initialisation for leaky ReLU with slope 0.01, biases zero, in every
/// convolution below `module`, as nnU-Net begins.
void he_init(torch::nn::Module& module);

inline constexpr double kSlope = 0.01;  // of leaky ReLU

}  // namespace serpentine
