// Bags as a table describes them: names, patients, labels or survival, and where their tiles are.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/config.h"
#include "pathology/bag_file.h"

namespace serpentine {

struct BagColumns {
  std::string slide, patient, label, time, event, censorship, site;
  void fields(Fields& f);
};

struct BagSetOptions {
  std::string path, features, level = "slide";
  BagColumns columns;
  std::vector<std::string> classes;
  bool keep = true;
  int64_t width = 0;       // F of a tile; 0: the most frequent one
  bool augmented = false;  // files hold augmented copies, which training draws from
  bool labelled = true;    // false: bags to be predicted, which need neither label nor time
  void fields(Fields& f);
};

/// One bag of the set.
struct Bag {
  std::string name, patient, site, label;
  double time = 0;                 // of survival; NaN without
  bool event = false;              // seen, not censored
  std::vector<std::string> parts;  // of published folds
  std::vector<std::string> files;  // several where a patient's slides are one bag
  torch::Tensor features, coords;  // when they lie in memory; packed ones as float16
  torch::Tensor copies;            // likewise, of augmented tiles
};

/// What could be read, and what could not and why.
struct BagSet {
  std::vector<Bag> bags;
  std::vector<std::string> classes;  // of the labels; empty for survival
  bool survival = false, augmented = false;
  int64_t width = 0;               // F
  std::vector<std::string> notes;  // sentences: what was left out, what was guessed
  std::vector<std::pair<std::string, std::string>> left_out;  // bags by name, and why

  /// `copies`: also the augmented ones.
  TileFeatures read(const Bag& bag, bool copies = false) const;
};

/// Three kinds of `path`: NAME.index.csv beside NAME.f16 (packed rows of float16); a table with a
/// header, whose slides have files in `features`; a table of numbers without header (bag label, bag
/// number, features of an instance). Bags that cannot be used are left out and named in the notes.
BagSet read_bag_set(const BagSetOptions& options);

}  // namespace serpentine
