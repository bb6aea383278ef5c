// How fast a device makes the exponentials of a scan: with its memory's bandwidth, the bound of the
// scan's speed.
#pragma once

#include <c10/core/Device.h>

namespace serpentine {

/// Exponentials a second, measured in some 100 ms: float32, from registers, with the instructions
/// that the scan takes; on a CPU over all threads of its mathematics.
double exp_rate(c10::Device device);

namespace cuda {
/// Throws in a build without CUDA.
double exp_rate(c10::Device device);
}  // namespace cuda

}  // namespace serpentine
