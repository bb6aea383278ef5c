// The convolution's CPU path: autograd around the row kernels.
#pragma once

#include "core/ops/causal_conv1d.h"

namespace serpentine::cpu {

/// As serpentine::causal_conv1d, which has checked the arguments.
CausalConv1dResult causal_conv1d(const CausalConv1dArgs& args, const ScanOrder& order,
                                 bool want_final_state);

}  // namespace serpentine::cpu
