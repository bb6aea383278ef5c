// The memory that a bag may take in a model, and the parts in which it is computed to keep it.
#pragma once

#include <cstdint>
#include <string>

namespace serpentine {

/// "8GiB", "500MB" or "1000000": bytes; "" is 0. Throws for anything else, naming `who`.
int64_t parse_bytes(const std::string& who, const std::string& text);

/// What is counted: the features of the batch at hand, every tensor between them and the loss, and
/// the gradients of these. What is not: bags that the data section keeps or the loader reads ahead,
/// weights and the optimizer's state, the program itself.
class MemoryBudget {
 public:
  /// No budget: everything in one piece. With one, freed blocks of a megabyte go back to the system
  /// at once (glibc), or the resident size would keep what earlier parts took.
  MemoryBudget(std::string who, const std::string& budget);

  /// The least number of parts (up to `most`) whose memory fits: tiles x (whole + apart / parts)
  /// bytes. Prints once for every doubling of the tiles what the parts save and cost. Throws when
  /// not even `most` parts fit, with the budget that would.
  int64_t parts(int64_t tiles, int64_t whole, int64_t apart, int64_t most);

  /// The same as tiles of a part, for what is computed tile by tile; 0: all at once.
  int64_t rows(int64_t tiles, int64_t whole, int64_t apart);

 private:
  std::string who_;
  int64_t budget_;
  int64_t told_ = 0;  // tiles of the bag about which something was printed
};

}  // namespace serpentine
