#include "apps/measure.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <vector>

#include <c10/core/CachingDeviceAllocator.h>

namespace serpentine {
namespace {

/// Peak and present resident memory of this process in bytes, from /proc/self/status; 0: unknown.
double memory_line(const char* key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key, 0) == 0) return 1024 * std::stod(line.substr(std::string(key).size()));
  }
  return 0;
}

}  // namespace

double peak_bytes(const std::function<void()>& act, c10::Device device) {
  if (!device.is_cpu()) {
    act();
    auto* allocator = c10::getDeviceAllocator(device.type());
    const auto index = std::max<c10::DeviceIndex>(device.index(), 0);
    allocator->resetPeakStats(index);
    const auto given_out = [&] { return allocator->getDeviceStats(index).allocated_bytes[0]; };
    const auto before = given_out().current;
    act();
    return static_cast<double>(given_out().peak - before);
  }
  std::ofstream("/proc/self/clear_refs") << 5;  // the peak starts from here
  const double before = memory_line("VmRSS:");
  act();
  const double peak = memory_line("VmHWM:");
  return before > 0 && peak > 0 ? std::max(0.0, peak - before) : -1;
}

Timing time_calls(const std::function<void()>& act, int64_t warmup, int64_t least, int64_t repeats,
                  double seconds) {
  using Clock = std::chrono::steady_clock;
  for (int64_t i = 0; i < warmup; ++i) act();
  std::vector<double> times;
  const auto begin = Clock::now();
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  while (static_cast<int64_t>(times.size()) < repeats &&
         (static_cast<int64_t>(times.size()) < least || since(begin) < seconds)) {
    const auto start = Clock::now();
    act();
    times.push_back(since(start));
  }
  std::sort(times.begin(), times.end());
  const size_t count = times.size();
  return {static_cast<int64_t>(count), times[count / 2], times[count / 4],
          times[count - 1 - count / 4]};
}

std::string amount(double value, const char* unit) {
  const char* prefixes[] = {"", "k", "M", "G", "T", "P"};
  size_t at = 0;
  for (; value >= 1000 && at < 5; ++at) value /= 1000;
  char text[48];
  std::snprintf(text, sizeof text, "%.3g %s%s", value, prefixes[at], unit);
  return text;
}

}  // namespace serpentine
