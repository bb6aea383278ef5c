// The matrix products of one set of chunks: states, outputs and gradients.
//
// With c the running sum of a inside a chunk, w = dt and L[i, j] = exp(c[i] - c[j]) for j <= i:
//   leaving  = exp(c[Q-1]) entering + sum_j exp(c[Q-1] - c[j]) w[j] B[j] x[j]^T
//   y[i]     = sum_j (C[i] . B[j]) L[i, j] w[j] x[j] + exp(c[i]) C[i] entering + D x[i]
// R chunks, Q slots a chunk, H heads, E channels a head, G groups, N states.
#pragma once

#include <ATen/core/Tensor.h>

namespace serpentine {

/// Operands of R chunks; w and a are wide (float32 or float64), the others wide or 16 bits.
struct SsdChunks {
  at::Tensor x;     // [R, Q, H, E]
  at::Tensor w, a;  // [R, Q, H]
  at::Tensor B, C;  // [R, Q, G, N]
  at::Tensor D;     // [R, H, E] wide, may be undefined
  SsdChunks narrow(int64_t first, int64_t count) const;
};

/// What each chunk adds to the state: [R, G, N, H/G, E], wide.
at::Tensor ssd_state_sums(const SsdChunks& in);

/// Writes y: [R, Q, H, E], dense, wide or of x's type. entering: as the sums.
void ssd_outputs(const SsdChunks& in, const at::Tensor& entering, const at::Tensor& y);

/// What the outputs' gradient adds to that of the entering states: [R, G, N, H/G, E].
at::Tensor ssd_state_gradient_sums(const SsdChunks& in, const at::Tensor& grad);

/// Gradients, wide, of the shapes of SsdChunks. grad: of the outputs; leaving: of the states that
/// leave the chunks.
SsdChunks ssd_gradients(const SsdChunks& in, const at::Tensor& entering, const at::Tensor& grad,
                        const at::Tensor& leaving);

}  // namespace serpentine
