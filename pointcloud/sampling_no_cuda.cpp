// Stands in for the CUDA kernels of sampling in a build without them: nothing takes them.
#include "core/check.h"
#include "pointcloud/sampling_device.h"

namespace serpentine::cuda {
namespace {

[[noreturn]] void refuse() {
  SERPENTINE_CHECK(false, "sampling", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

}  // namespace

bool takes_points(const at::Tensor&) { return false; }
int64_t most_neighbours() { return 0; }

at::Tensor farthest_points(const at::Tensor&, int64_t, bool, float, float) { refuse(); }
void nearest_points(const at::Tensor&, const at::Tensor&, int64_t, at::Tensor&, at::Tensor&) {
  refuse();
}
void nearest_of_rows(const at::Tensor&, int64_t, at::Tensor&, at::Tensor&) { refuse(); }
at::Tensor ball_query(const at::Tensor&, const at::Tensor&, float, int64_t) { refuse(); }

}  // namespace serpentine::cuda
