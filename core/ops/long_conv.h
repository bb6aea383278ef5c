// Convolution with kernels as long as the sequence, by FFT, and the kernels of diagonal state
// spaces.
//
// Gu et al., "Parameterization and initialization of diagonal state space models", arXiv
// 2206.11893. B batch, T tokens, H channels, C kernels a channel, N modes, L kernel length.
#pragma once

#include <ATen/core/Tensor.h>

namespace serpentine {

/// k[c, h, l] = 2 Re sum_n weights[c, h, n] exp(l exponents[h, n]), l = 0 .. length - 1: half of
/// the modes of a real system, whose conjugates contribute as much. weights: complex [C, H, N],
/// exponents: complex [H, N] -> real [C, H, length]. Products of sqrt(length) long factors, so the
/// memory is O(C H (length + N sqrt(length))).
at::Tensor exponential_kernel(const at::Tensor& weights, const at::Tensor& exponents,
                              int64_t length);

/// y[b, c, t, h] = sum_s kernel[c, h, s] u[b, t - s, h], zeros before the start.
/// u: [B, T, H], any floating type; kernel: float32 or float64 [C, H, L] -> [B, C, T, H] in the
/// kernel's type. Differentiable; the FFT is of the least length >= T + min(L, T) - 1 whose prime
/// factors are 2, 3 and 5.
at::Tensor long_conv(const at::Tensor& u, const at::Tensor& kernel);

/// The same for the other direction, without the current token, as S4's bidirectional layers define
/// it: y[b, c, t, h] = sum_{s > t} kernel[c, h, s - t - 1] u[b, s, h].
at::Tensor long_conv_from_end(const at::Tensor& u, const at::Tensor& kernel);

}  // namespace serpentine
