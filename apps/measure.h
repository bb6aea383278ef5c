// Time and memory of a call, for what the program says about a model.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace serpentine {

/// Bytes that `act` adds to the resident memory at its peak; -1 where the system does not tell.
double peak_bytes(const std::function<void()>& act);

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
