// y silu(z): the gate of every Mamba block (Gu & Dao, arXiv 2312.00752, figure 3).
#pragma once

#include <ATen/core/Tensor.h>

namespace serpentine {

/// [..., D] each, broadcast and promoted as LibTorch's product does. On a GPU one pass over rows of
/// one type, fp32 inside; elsewhere LibTorch's own operators. Differentiable (once on a GPU).
at::Tensor silu_gate(const at::Tensor& y, const at::Tensor& z);

}  // namespace serpentine
