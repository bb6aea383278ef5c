#include "pathology/nystrom.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr int64_t kHeads = 8, kKernel = 33, kSteps = 6;
constexpr double kDropout = 0.1;

/// Razavi et al.'s iteration as published; its start is scaled by one number for all heads.
torch::Tensor pseudo_inverse(const torch::Tensor& x) {
  const auto size = x.abs();
  auto z = x.transpose(-1, -2) / (size.sum(-1).max() * size.sum(-2).max());
  const auto one = torch::eye(x.size(-1), x.options());
  for (int64_t step = 0; step < kSteps; ++step) {
    const auto xz = x.matmul(z);
    z = 0.25 * z.matmul(13 * one - xz.matmul(15 * one - xz.matmul(7 * one - xz)));
  }
  return z;
}

}  // namespace

NystromAttentionImpl::NystromAttentionImpl(int64_t dim) : dim_(dim), landmarks_(dim / 2) {
  SERPENTINE_CHECK(dim >= kHeads && dim % kHeads == 0, "trans_mil", "hidden must be a multiple of ",
                   kHeads, ", got ", dim);
  using torch::nn::LinearOptions;
  to_qkv = register_module("to_qkv", torch::nn::Linear(LinearOptions(dim, 3 * dim).bias(false)));
  to_out = register_module("to_out", std::make_shared<PartsImpl>())->linear("0", dim, dim);
  res_conv = register_module(
      "res_conv", torch::nn::Conv2d(torch::nn::Conv2dOptions(kHeads, kHeads, {kKernel, 1})
                                        .padding({kKernel / 2, 0})
                                        .groups(kHeads)
                                        .bias(false)));
}

NystromAttentionImpl::Parts NystromAttentionImpl::parts(const torch::Tensor& x) {
  const int64_t missing = (landmarks_ - x.size(1) % landmarks_) % landmarks_;
  const auto padded = torch::constant_pad_nd(x, {0, 0, missing, 0});
  const int64_t width = dim_ / kHeads, length = padded.size(1) / landmarks_;
  const auto heads = to_qkv(padded)
                         .view({x.size(0), padded.size(1), 3, kHeads, width})
                         .permute({2, 0, 3, 1, 4});  // [3, 1, h, n', d]
  const auto q = heads[0] / std::sqrt(static_cast<double>(width)), k = heads[1];
  const auto mean = [&](const torch::Tensor& of) {
    return of.reshape({x.size(0), kHeads, landmarks_, length, width}).sum(3) / length;
  };
  const auto q_mean = mean(q), k_mean = mean(k);
  Parts made;
  made.of_tokens = q.matmul(k_mean.transpose(-1, -2)).softmax(-1);
  made.inverse = pseudo_inverse(q_mean.matmul(k_mean.transpose(-1, -2)).softmax(-1));
  made.of_landmarks = q_mean.matmul(k.transpose(-1, -2)).softmax(-1);
  made.v = heads[2];
  return made;
}

torch::Tensor NystromAttentionImpl::forward(const torch::Tensor& x) {
  const Parts made = parts(x);
  auto out = made.of_tokens.matmul(made.inverse).matmul(made.of_landmarks.matmul(made.v));
  out = out + res_conv(made.v);
  out = to_out(out.transpose(1, 2).flatten(2));
  out = torch::dropout(out, kDropout, is_training());
  return out.slice(1, out.size(1) - x.size(1));
}

torch::Tensor NystromAttentionImpl::first_row(const torch::Tensor& x) {
  const Parts made = parts(x);
  const int64_t padded = made.v.size(2);
  const auto row = made.of_tokens.narrow(2, padded - x.size(1), 1)
                       .matmul(made.inverse)
                       .matmul(made.of_landmarks);  // [1, h, 1, n']
  return row.mean(1).flatten().slice(0, padded - x.size(1));
}

}  // namespace serpentine
