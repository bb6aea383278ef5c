#include "pointcloud/radix_sort.h"

#include <array>
#include <bit>
#include <cstddef>

namespace serpentine {

void sort_by_key(std::vector<KeyedRow>& rows, uint64_t most) {
  constexpr unsigned kBits = 11;
  constexpr uint64_t kDigits = uint64_t{1} << kBits;
  std::vector<KeyedRow> other(rows.size());
  for (unsigned shift = 0; shift < static_cast<unsigned>(std::bit_width(most)); shift += kBits) {
    std::array<size_t, kDigits> begin{};
    for (const auto& row : rows) ++begin[row.key >> shift & (kDigits - 1)];
    size_t sum = 0;
    for (auto& count : begin) {
      const size_t here = count;
      count = sum;
      sum += here;
    }
    for (const auto& row : rows) other[begin[row.key >> shift & (kDigits - 1)]++] = row;
    rows.swap(other);
  }
}

}  // namespace serpentine
