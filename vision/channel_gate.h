// BiAttn: a gate on channels from the mean of the normed tokens.
//
// Huang et al., "LocalMamba", arXiv 2403.09338, section 3.3; EfficientVMamba uses it too.
#pragma once

#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/types.h>

namespace serpentine {

/// x * sigmoid(W2 gelu(W1 mean(norm x))): the mean is over all but the first and last axes. Keys
/// norm, global_reduce, channel_select.
class ChannelGateImpl : public torch::nn::Module {
 public:
  ChannelGateImpl(int64_t channels, int64_t reduced);
  torch::Tensor forward(const torch::Tensor& x);  // [B, ..., C] -> [B, ..., C]

 private:
  torch::nn::LayerNorm norm_{nullptr};
  torch::nn::Linear global_reduce_{nullptr}, channel_select_{nullptr};
};
TORCH_MODULE(ChannelGate);

}  // namespace serpentine
