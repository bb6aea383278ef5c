#include "vision/channel_gate.h"

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {

ChannelGateImpl::ChannelGateImpl(int64_t channels, int64_t reduced) {
  SERPENTINE_CHECK(reduced >= 1, "channel gate", "needs at least 8 channels, got ", channels);
  norm_ = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({channels})));
  global_reduce_ = register_module("global_reduce", torch::nn::Linear(channels, reduced));
  channel_select_ = register_module("channel_select", torch::nn::Linear(reduced, channels));
}

torch::Tensor ChannelGateImpl::forward(const torch::Tensor& x) {
  const auto mean = norm_(x).flatten(1, -2).mean(1);  // [B, C]
  const auto gate = torch::sigmoid(channel_select_(torch::gelu(global_reduce_(mean))));
  auto shape = std::vector<int64_t>(static_cast<size_t>(x.dim()), 1);
  shape.front() = x.size(0);
  shape.back() = x.size(-1);
  return x * gate.to(x.scalar_type()).view(shape);
}

}  // namespace serpentine
