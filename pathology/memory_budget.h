// The memory that training a bag may take, and the parts in which a bag is computed to keep it.
#pragma once

#include <cstdint>
#include <string>

namespace serpentine {

/// "8GiB", "500MB" or "1000000": bytes; "" is 0. Throws for anything else, naming `who`.
int64_t parse_bytes(const std::string& who, const std::string& text);

class MemoryBudget {
 public:
  /// No budget: everything in one piece.
  MemoryBudget(std::string who, const std::string& budget);

  /// The least number of parts (up to `most`) whose memory fits: tiles x (whole + apart / parts)
  /// bytes. Prints once for every doubling of the tiles what the parts save and cost. Throws when
  /// not even `most` parts fit, with the budget that would.
  int64_t parts(int64_t tiles, int64_t whole, int64_t apart, int64_t most);

 private:
  std::string who_;
  int64_t budget_;
  int64_t told_ = 0;  // tiles of the bag about which something was printed
};

}  // namespace serpentine
