// Which bags train, validate and test: folds that keep patients (or sites) together.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/data/source.h"

namespace serpentine {

/// What a split may look at.
struct BagInfo {
  std::string name, patient, site;
  int64_t stratum = 0;             // its class, or its time bin and whether the event was seen
  std::vector<std::string> parts;  // "train", "val", "test" or "" of each published fold
};

/// Rows of the bags, ascending.
struct Split {
  std::vector<int64_t> train, validation, test;
  const std::vector<int64_t>& of(Part part) const;
};

struct SplitOptions {
  std::string scheme = "kfold", path, group = "patient";
  int64_t folds = 10, fold = 0, seed = 0;
  double validation = 0.1, test = 0.1;
  bool stratify = true, shared_patients = false;
  void fields(Fields& f);
};

/// The split of fold `options.fold`. kfold: each bag is tested once. monte_carlo: each fold draws
/// anew. files: splits_<fold>.csv of a folder, by bag's name or patient. columns: the bags' parts.
/// Throws when a patient is in two parts (unless shared_patients), naming patients and parts; notes
/// get a sentence on names that no bag has, and on shared patients that were allowed.
Split make_split(const std::vector<BagInfo>& bags, const SplitOptions& options,
                 const std::string& who, std::vector<std::string>* notes = nullptr);

/// The file as CLAM and MambaMIL write it: header ",train,val,test", columns of names.
Split read_split(const std::string& path, const std::vector<BagInfo>& bags,
                 std::vector<std::string>* notes = nullptr);
/// The same, and beside it splits_<k>_bool.csv and splits_<k>_descriptor.csv (bags of each class).
void write_split(const std::string& folder, int64_t fold, const Split& split,
                 const std::vector<BagInfo>& bags, const std::vector<std::string>& classes);

}  // namespace serpentine
