// Splits as CLAM and MambaMIL keep them: splits_<k>.csv, splits_<k>_bool.csv and
// splits_<k>_descriptor.csv.
#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "core/check.h"
#include "core/io/atomic_file.h"
#include "core/io/csv.h"
#include "pathology/splits.h"

namespace serpentine {
namespace {

int64_t column_of(const CsvTable& table, const std::string& name) {
  const auto found = std::find(table.names.begin(), table.names.end(), name);
  return found == table.names.end() ? -1 : found - table.names.begin();
}

}  // namespace

Split read_split(const std::string& path, const std::vector<BagInfo>& bags,
                 std::vector<std::string>* notes) {
  const CsvTable table = read_csv(path, {.header = "yes"});
  std::map<std::string, std::vector<int64_t>> by_name;
  for (size_t i = 0; i < bags.size(); ++i) {
    by_name[bags[i].name].push_back(static_cast<int64_t>(i));
    if (bags[i].patient != bags[i].name)
      by_name[bags[i].patient].push_back(static_cast<int64_t>(i));
  }
  Split split;
  std::string unknown;
  int64_t missing = 0;
  for (const auto& [name, rows] :
       {std::pair("train", &split.train), std::pair("val", &split.validation),
        std::pair("test", &split.test)}) {
    const int64_t column = column_of(table, name);
    SERPENTINE_CHECK(column >= 0, path, "there is no column '", name, "'");
    for (int64_t row = 0; row < table.rows(); ++row) {
      std::string id(table.cell(row, column));
      if (id.empty()) continue;
      if (id.ends_with(".svs")) id.resize(id.size() - 4);
      const auto found = by_name.find(id);
      if (found == by_name.end()) {
        if (++missing <= 3) unknown += (unknown.empty() ? "" : ", ") + id;
      } else {
        rows->insert(rows->end(), found->second.begin(), found->second.end());
      }
    }
  }
  if (missing > 0 && notes)
    notes->push_back(path + ": " + std::to_string(missing) + " names have no bag: " + unknown +
                     (missing > 3 ? ", ..." : ""));
  SERPENTINE_CHECK(!split.train.empty(), path, "none of its training names has a bag");
  return split;
}

void write_split(const std::string& folder, int64_t fold, const Split& split,
                 const std::vector<BagInfo>& bags, const std::vector<std::string>& classes) {
  const std::array<const std::vector<int64_t>*, 3> parts = {&split.train, &split.validation,
                                                            &split.test};
  const auto stem = (std::filesystem::path(folder) / ("splits_" + std::to_string(fold))).string();
  std::string table = ",train,val,test\n", marks = table, counts = table;
  const size_t rows = std::max({parts[0]->size(), parts[1]->size(), parts[2]->size()});
  for (size_t row = 0; row < rows; ++row) {
    table += std::to_string(row);
    for (const auto* part : parts)
      table +=
          "," + (row < part->size() ? csv_cell(bags[static_cast<size_t>((*part)[row])].name) : "");
    table += "\n";
  }
  for (size_t bag = 0; bag < bags.size(); ++bag) {
    std::string line;
    bool any = false;
    for (const auto* part : parts) {
      const bool in = std::binary_search(part->begin(), part->end(), static_cast<int64_t>(bag));
      line += in ? ",True" : ",False";
      any = any || in;
    }
    if (any) marks += csv_cell(bags[bag].name) + line + "\n";
  }
  for (size_t c = 0; c < classes.size(); ++c) {
    counts += csv_cell(classes[c]);
    for (const auto* part : parts) {
      const auto count = std::count_if(part->begin(), part->end(), [&](int64_t bag) {
        return bags[static_cast<size_t>(bag)].stratum == static_cast<int64_t>(c);
      });
      counts += "," + std::to_string(count);
    }
    counts += "\n";
  }
  write_atomically(stem + ".csv", table);
  write_atomically(stem + "_bool.csv", marks);
  write_atomically(stem + "_descriptor.csv", counts);
}

}  // namespace serpentine
