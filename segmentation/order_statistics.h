// Medians and percentiles of short lists.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace serpentine {

/// The upper one of the two middle values of an even number.
template <class T>
T median(std::vector<T> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// The value below which `share` of them lie, without interpolation.
inline double percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  const auto at = static_cast<size_t>(share * static_cast<double>(values.size() - 1));
  return values[at];
}

}  // namespace serpentine
