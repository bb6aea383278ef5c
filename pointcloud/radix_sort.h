// Sorting many small whole numbers, which is faster than comparing them.
#pragma once

#include <cstdint>
#include <vector>

namespace serpentine {

struct KeyedRow {
  uint64_t key;
  int64_t row;
};

/// Ascending by key; rows of equal keys keep their sequence. `most`: no key is larger. Cost: rows
/// times (bits of `most`) / 11. Knuth, The Art of Computer Programming 3, section 5.2.5.
void sort_by_key(std::vector<KeyedRow>& rows, uint64_t most);

}  // namespace serpentine
