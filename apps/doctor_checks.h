// What this machine has.
#pragma once

#include <string>
#include <vector>

namespace serpentine {

/// "NVIDIA H100 80GB HBM3, driver CUDA 13.0", one entry a GPU, asked of the driver; empty without
/// one.
std::vector<std::string> gpus();

/// The processor's name and number of threads.
std::string processor();

/// The instruction set that the vectorised kernels choose on this machine, as "AVX2".
std::string simd_name();

/// The full path of a program on PATH, or "".
std::string find_program(const std::string& name);

/// "13.0.88 in /usr/local/cuda/bin": the CUDA compiler on PATH, under CUDA_HOME or at its usual
/// place; "" without one.
std::string cuda_toolkit();

/// The first line that `program --version` prints, or "".
std::string version_of(const std::string& program, const std::string& option = "--version");

}  // namespace serpentine
