// Stands in for the CUDA kernels of curves in a build without them: nothing takes them.
#include "core/check.h"
#include "scans/curve_device.h"

namespace serpentine::cuda {

bool takes_cells(const Cells&) { return false; }

at::Tensor morton_key(const Cells&) {
  SERPENTINE_CHECK(false, "scans", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

at::Tensor hilbert_key(const Cells&, int64_t) {
  SERPENTINE_CHECK(false, "scans", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

}  // namespace serpentine::cuda
