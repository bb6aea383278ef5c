// The table of a set of bags: its columns, its rows as bags, and which rows cannot be used.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/io/csv.h"
#include "pathology/bag_set.h"

namespace serpentine {

/// "3 bags are left out: a (why), b (why), ..."
class LeftOut {
 public:
  void add(const std::string& name, const std::string& why);
  /// "" when there is none.
  std::string sentence() const;
  void tell(BagSet& set) const;

 private:
  std::vector<std::pair<std::string, std::string>> all_;
  std::string text_;
};

/// The column of the chosen name, else of the first usual one; -1 when it is not needed. Throws
/// with the key under `columns:` that would choose it.
int64_t find_column(const CsvTable& table, const std::string& chosen,
                    const std::vector<std::string>& usual, const char* what, bool needed);

/// The name of a slide's bag: without ".svs".
std::string bag_name(std::string slide);

/// The rows of a table as bags without tiles.
std::vector<Bag> described_bags(const CsvTable& table, const BagSetOptions& options, BagSet& set,
                                LeftOut& left);

}  // namespace serpentine
