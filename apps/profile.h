// Where the time of a call goes: by kernel on a GPU, by operator on a CPU.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <c10/core/Device.h>

namespace serpentine {

struct ProfileRow {
  std::string name;    // a kernel's without its arguments, or an operator's
  double seconds = 0;  // its own, without what it called
  int64_t calls = 0;
};

/// One call of `act`, recorded by LibTorch's profiler; the longest first. On a GPU the kernels and
/// copies that ran there, on a CPU the operators. `act` returns when the device has finished.
std::vector<ProfileRow> profile(const std::function<void()>& act, c10::Device device);

/// A table of the first `most` rows with their shares, and the sums of all.
std::string profile_text(const std::vector<ProfileRow>& rows, size_t most = 25);

}  // namespace serpentine
