// What a GPU brings to state space duality beside the matrix products: the passes between them.
// The definitions are in ssd_math.cpp and ssd_chunks.cpp.
#pragma once

#include "core/ops/ssd_math.h"

namespace serpentine::cuda {

/// Whether the kernels take these operands: float32 sums and chunks of at most 1,024 positions, in
/// a build with CUDA.
bool takes_ssd(const SsdChunks& in);

/// L times its group's pairs: [R H, Q, Q] of `type`. sum: [R, Q, H], pairs: [R G, Q, Q].
at::Tensor ssd_mixed(const SsdChunks& in, const at::Tensor& sum, const at::Tensor& pairs,
                     at::ScalarType type);

struct SsdMixedBack {
  at::Tensor mixing;       // as ssd_mixed
  at::Tensor row, column;  // [R, H, Q]: the sums over j, weighted with w, and over i
};
/// grad: [R H, Q, Q], the outputs' gradients times x; times L and w afterwards.
SsdMixedBack ssd_mixed_back(const SsdChunks& in, const at::Tensor& sum, const at::Tensor& pairs,
                            const at::Tensor& grad, at::ScalarType type);

/// inside_scale inside + seen_scale seen + D x -> out [R, Q, H, E]. inside: [R H, Q, E], seen:
/// [R G, Q, H/G E], x: [R, Q, H, E], scales: [R, Q, H], the first may be undefined.
void ssd_combined(const SsdChunks& in, const at::Tensor& out, const at::Tensor& inside,
                  const at::Tensor& inside_scale, const at::Tensor& seen,
                  const at::Tensor& seen_scale, const at::Tensor& x);

/// pass_states for sequences of equal length. sums: [B, steps S, G, N, H/G, E], decay: [B, steps S,
/// H], state: [B, S, G, N, H/G, E]; float32, dense.
void ssd_states(at::Tensor& sums, const at::Tensor& decay, at::Tensor& state, bool forward);

}  // namespace serpentine::cuda
