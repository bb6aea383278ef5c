// Keys of curves on CUDA: tensors as the kernels' plain memory.
#include "scans/curve_cuda.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>

#include "core/ops/cuda_memory.h"
#include "scans/curve_device.h"

namespace serpentine::cuda {
namespace {

at::Tensor keys(const Cells& cells, int64_t depth, bool hilbert) {
  const c10::cuda::CUDAGuard guard(cells.index.device());
  const at::Tensor index = cells.index.contiguous(), extent = cells.extent.contiguous();
  const at::Tensor key = at::empty(index.sizes().slice(0, index.dim() - 1), index.options());
  CurveCall call;
  call.index = index.const_data_ptr<int64_t>();
  call.extent = extent.const_data_ptr<int64_t>();
  call.key = key.mutable_data_ptr<int64_t>();
  call.cells = key.numel();
  call.dims = static_cast<int>(index.size(-1));
  call.bits = static_cast<int>(kCellBits);
  call.depth = depth;
  check_launch("scans", hilbert ? hilbert_keys(call, stream()) : morton_keys(call, stream()));
  return key;
}

}  // namespace

bool takes_cells(const Cells& cells) {
  return cells.index.is_cuda() && cells.extent.is_cuda() && cells.index.scalar_type() == at::kLong;
}

at::Tensor morton_key(const Cells& cells) { return keys(cells, 0, /*hilbert=*/false); }
at::Tensor hilbert_key(const Cells& cells, int64_t depth) {
  return keys(cells, depth, /*hilbert=*/true);
}

}  // namespace serpentine::cuda
