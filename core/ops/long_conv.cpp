#include "core/ops/long_conv.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

int64_t fast_fft_length(int64_t least) {
  for (int64_t length = std::max<int64_t>(least, 1);; ++length) {
    int64_t rest = length;
    for (const int64_t prime : {2, 3, 5}) {
      while (rest % prime == 0) rest /= prime;
    }
    if (rest == 1) return length;
  }
}

}  // namespace

at::Tensor exponential_kernel(const at::Tensor& weights, const at::Tensor& exponents,
                              int64_t length) {
  constexpr const char* kWho = "exponential_kernel";
  SERPENTINE_CHECK(weights.is_complex() && exponents.is_complex(), kWho,
                   "weights and exponents must be complex, got ", weights.scalar_type(), " and ",
                   exponents.scalar_type());
  SERPENTINE_CHECK(exponents.dim() == 2, kWho, "exponents must be [H, N], got ", exponents.sizes());
  check_shape(kWho, weights, "weights", {-1, exponents.size(0), exponents.size(1)}, "C, H, N");
  const auto real = at::real(exponents).options().requires_grad(false);
  if (length == 0) return at::zeros({weights.size(0), weights.size(1), 0}, real);

  // exp(l x) with l = block * q + r is the product of two factors: a matrix product over n
  const auto block =
      std::max<int64_t>(1, static_cast<int64_t>(std::sqrt(static_cast<double>(length))));
  const int64_t blocks = (length + block - 1) / block;
  const auto starts = (at::arange(blocks, real) * block).unsqueeze(-1);               // [Q, 1]
  const auto left = weights.unsqueeze(-2) * (exponents.unsqueeze(1) * starts).exp();  // [C,H,Q,N]
  const auto right = (exponents.unsqueeze(-1) * at::arange(block, real)).exp();  // [H, N, block]
  const auto product = at::matmul(at::cat({at::real(left), -at::imag(left)}, -1),
                                  at::cat({at::real(right), at::imag(right)}, -2));
  return 2 * product.flatten(-2).narrow(-1, 0, length);
}

at::Tensor long_conv(const at::Tensor& u, const at::Tensor& kernel) {
  constexpr const char* kWho = "long_conv";
  SERPENTINE_CHECK(u.dim() == 3, kWho, "u must be [B, T, H], got ", u.sizes());
  check_shape(kWho, kernel, "the kernel", {-1, u.size(2), -1}, "C, H, L");
  const int64_t tokens = u.size(1), used = std::min(kernel.size(2), tokens);
  if (u.numel() == 0 || used == 0) {
    return at::zeros({u.size(0), kernel.size(0), tokens, u.size(2)}, kernel.options()) +
           0 * (u.sum() + kernel.sum());
  }
  const int64_t length = fast_fft_length(tokens + used - 1);
  const auto kernel_spectrum =
      at::fft_rfft(kernel.narrow(2, 0, used), length).transpose(1, 2);  // [C, F, H]
  const auto spectrum = at::fft_rfft(u.to(kernel.scalar_type()), length, 1).unsqueeze(1);
  return at::fft_irfft(spectrum * kernel_spectrum, length, 2).narrow(2, 0, tokens);
}

at::Tensor long_conv_from_end(const at::Tensor& u, const at::Tensor& kernel) {
  // the causal convolution of the flipped sequence, one step late
  const auto y = long_conv(u.flip(1), kernel).flip(2);
  if (u.size(1) == 0) return y;
  return at::cat({y.narrow(2, 1, u.size(1) - 1), at::zeros_like(y.narrow(2, 0, 1))}, 2);
}

}  // namespace serpentine
