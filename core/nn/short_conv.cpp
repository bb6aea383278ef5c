#include "core/nn/short_conv.h"

#include <torch/torch.h>

#include "core/ops/causal_conv1d.h"

namespace serpentine {
namespace {

/// The last W samples of `past` followed by `samples`. past: [B, D, W], samples: [B, T, D].
torch::Tensor shifted(const torch::Tensor& past, const torch::Tensor& samples) {
  const int64_t width = past.size(2), fresh = std::min(width, samples.size(1));
  const auto tail = samples.narrow(1, samples.size(1) - fresh, fresh).transpose(1, 2);
  return torch::cat({past.narrow(2, fresh, width - fresh), tail.to(past.scalar_type())}, 2);
}

}  // namespace

torch::Tensor short_conv(const torch::nn::Conv1d& conv1d, const torch::Tensor& x,
                         const ScanOrder& order, torch::Tensor* past) {
  CausalConv1dArgs args;
  args.x = x;
  args.weight = conv1d->weight.transpose(0, 1);  // [1, D, W]
  if (conv1d->bias.defined()) args.bias = conv1d->bias.unsqueeze(0);
  args.silu = true;
  if (past != nullptr) {
    args.initial_state =
        past->narrow(2, 1, past->size(2) - 1).transpose(1, 2).unsqueeze(1).to(x.scalar_type());
    *past = shifted(*past, x);
  }
  return causal_conv1d(args, order).y;
}

}  // namespace serpentine
