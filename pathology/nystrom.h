// Self-attention in linear time through landmarks. Xiong et al., arXiv 2102.03902.
#pragma once

#include <torch/nn/modules/conv.h>

#include "pathology/bag_model.h"

namespace serpentine {

/// Heads of dim / 8 channels, dim / 2 landmarks (means of consecutive tokens), six steps towards
/// the pseudo-inverse, and a depthwise convolution of the values over 33 tokens. The sequence is
/// padded with zeros at its front to a multiple of the landmarks.
class NystromAttentionImpl : public torch::nn::Module {
 public:
  explicit NystromAttentionImpl(int64_t dim);
  /// x: [1, n, dim] -> [1, n, dim]
  torch::Tensor forward(const torch::Tensor& x);
  /// The attention of token 0 to all n, a mean over the heads: [n]. Approximate, so it may be
  /// slightly negative.
  torch::Tensor first_row(const torch::Tensor& x);

 private:
  struct Parts {
    torch::Tensor of_tokens, inverse, of_landmarks, v;  // [1, h, n', m], [m, m], [m, n'], [n', d]
  };
  Parts parts(const torch::Tensor& x);

  int64_t dim_, landmarks_;
  torch::nn::Linear to_qkv{nullptr}, to_out{nullptr};
  torch::nn::Conv2d res_conv{nullptr};
};
TORCH_MODULE(NystromAttention);

}  // namespace serpentine
