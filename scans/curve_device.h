// What a GPU brings to the keys of curves: one launch for what takes hundreds of tensor operations.
#pragma once

#include "scans/cells.h"

namespace serpentine::cuda {

/// Whether the kernels take these cells: on a GPU, in a build with CUDA.
bool takes_cells(const Cells& cells);

/// As morton_key and hilbert_key. int64 [T] or [B, T].
at::Tensor morton_key(const Cells& cells);
at::Tensor hilbert_key(const Cells& cells, int64_t depth);

}  // namespace serpentine::cuda
