// The small tables on GPUs that orders share and that are kept for later ones.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

namespace serpentine {

/// Those of now. Whoever reads them by their addresses alone, as a recorded CUDA graph does, holds
/// them, for they may be dropped from what is kept (core/scan_order.cpp).
std::vector<at::Tensor> kept_tables();

}  // namespace serpentine
