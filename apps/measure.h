// Time and memory of a call, for what the program says about a model.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include <c10/core/Device.h>

namespace serpentine {

/// Bytes that `act` adds at its peak: on the CPU to the resident memory (-1 where the system does
/// not tell), on a GPU to what LibTorch's allocator has given out. There it is called once before,
/// for what stays allocated after a first call, such as workspaces and an optimiser's averages.
double peak_bytes(const std::function<void()>& act, c10::Device device);

struct Timing {
  int64_t repeats = 0;
  double median = 0, low = 0, high = 0;  // seconds of a call: median and quartiles
};

/// Calls `act` `warmup` times, then until `repeats` calls or, after `least` of them, `seconds`.
Timing time_calls(const std::function<void()>& act, int64_t warmup, int64_t least, int64_t repeats,
                  double seconds);

/// "1.23 GB"
std::string amount(double value, const char* unit);

}  // namespace serpentine
