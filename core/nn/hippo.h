// HiPPO: the dense systems that remember a function by its coefficients, their normal plus low-rank
// form, and the diagonal systems made after them.
//
// Gu et al., arXiv 2008.07669 and 2111.00396 (appendix C); Gu et al., arXiv 2206.11893 for the
// diagonal ones. Everything is float64. N states.
#pragma once

#include <string>

#include <torch/types.h>

namespace serpentine {

struct HippoSystem {
  torch::Tensor A;  // [N, N]
  torch::Tensor B;  // [N]
};

/// measure: legs (scaled Legendre), legt (translated Legendre) or fourier; N even for fourier.
HippoSystem hippo_system(const std::string& measure, int64_t states);

/// P with A + sum_r P_r P_r^T normal, [rank, N]; needs rank 1 (legs, fourier) or 2 (legt), further
/// rows are zero.
torch::Tensor hippo_rank_correction(const std::string& measure, int64_t states, int64_t rank);

/// A = V (diag(w) - P P^*) V^*, the half of the modes with negative imaginary part, ascending by
/// it.
struct NormalPlusLowRank {
  torch::Tensor w;  // complex [N/2]
  torch::Tensor P;  // complex [rank, N/2]: V^* P
  torch::Tensor B;  // complex [N/2]: V^* B
  torch::Tensor V;  // complex [N, N/2]
};

/// The phases of the modes are LAPACK's. B_clip > 0 limits the imaginary part of B, as published.
NormalPlusLowRank hippo_nplr(const std::string& measure, int64_t states, int64_t rank = 1,
                             double B_clip = 2);

/// Diagonal A, complex [N/2] with negative imaginary part, by name: lin, inv, inv2, quad, real or
/// legs (the w above).
torch::Tensor diagonal_system(const std::string& name, int64_t states);

}  // namespace serpentine
