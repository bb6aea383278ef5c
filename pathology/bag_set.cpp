#include "pathology/bag_set.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>

#include <torch/torch.h>

#include "core/check.h"
#include "core/io/progress.h"
#include "pathology/bag_table.h"

namespace serpentine {
namespace {

constexpr double kBagSetNone = std::numeric_limits<double>::quiet_NaN();

std::string sentence_of(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  std::string text = torch_error ? torch_error->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

/// Throws unless the tiles can be used.
void check_tiles(const TileFeatures& tiles) {
  TORCH_CHECK(tiles.features.size(0) > 0, "it holds no tile");
  int64_t bad = 0;
  for (const auto& part : tiles.features.split(65536))  // a large bag once, not several times
    bad += part.isfinite().all(1).logical_not().sum().item<int64_t>();
  TORCH_CHECK(bad == 0, bad, " of its ", tiles.features.size(0), " tiles have features that are ",
              "not finite");
}

/// Keeps the bags of the width that was asked for, or of the most frequent one (the first of
/// several). widths: of set.bags.
void choose_width(const BagSetOptions& options, BagSet& set, const std::vector<int64_t>& widths,
                  LeftOut& left) {
  std::map<int64_t, int64_t> count;
  for (const int64_t width : widths) ++count[width];
  set.width = options.width;
  for (size_t i = 0; i < widths.size() && options.width == 0; ++i) {
    if (set.width == 0 || count[widths[i]] > count[set.width]) set.width = widths[i];
  }
  std::vector<Bag> kept;
  for (size_t i = 0; i < widths.size(); ++i) {
    if (widths[i] == set.width) {
      kept.push_back(std::move(set.bags[i]));
    } else {
      left.add(set.bags[i].name, "its tiles have " + std::to_string(widths[i]) + " features, " +
                                     (options.width > 0 ? "data.width is " : "most have ") +
                                     std::to_string(set.width));
    }
  }
  set.bags = std::move(kept);
}

TileFeatures joined(const std::vector<std::string>& files, bool copies) {
  std::vector<torch::Tensor> features, coords, copied;
  for (const auto& file : files) {
    TileFeatures part = read_tile_features(file, copies);
    if (part.features.size(0) == 0) continue;
    features.push_back(part.features);
    if (part.coords.defined()) coords.push_back(part.coords);
    if (part.copies.defined()) copied.push_back(part.copies);
  }
  if (features.empty()) return {torch::empty({0, 0}), {}, {}};
  const auto all = [&](const std::vector<torch::Tensor>& of, int64_t axis) {
    if (of.size() != features.size()) return torch::Tensor();
    return of.size() == 1 ? of[0] : torch::cat(of, axis);
  };
  return {all(features, 0), all(coords, 0), all(copied, 1)};
}

/// One bag a patient: the files of all slides, the first slide's table row.
std::vector<Bag> by_patient(std::vector<Bag> bags) {
  std::vector<Bag> merged;
  std::map<std::string, size_t> place;
  for (Bag& bag : bags) {
    const auto [found, fresh] = place.try_emplace(bag.patient, merged.size());
    if (fresh) {
      bag.name = bag.patient;
      merged.push_back(std::move(bag));
    } else {
      auto& files = merged[found->second].files;
      files.insert(files.end(), bag.files.begin(), bag.files.end());
    }
  }
  return merged;
}

void read_folder(const BagSetOptions& options, BagSet& set, LeftOut& left) {
  const CsvTable table = read_csv(options.path, {.header = "yes"});
  std::vector<Bag> found;
  for (Bag& bag : described_bags(table, options, set, left)) {
    const std::string file = find_tile_features(options.features, bag.name);
    if (file.empty()) {
      left.add(bag.name, "no file of features in " + options.features);
      continue;
    }
    bag.files = {file};
    found.push_back(std::move(bag));
  }
  if (options.level == "patient") found = by_patient(std::move(found));
  Progress progress("reading bags", static_cast<int64_t>(found.size()));
  int64_t done = 0;
  std::vector<int64_t> widths;
  for (Bag& bag : found) {
    try {
      TileFeatures tiles = joined(bag.files, options.augmented);
      check_tiles(tiles);
      if (options.keep) {
        bag.features = tiles.features;
        bag.coords = tiles.coords;
        bag.copies = tiles.copies;
      }
      widths.push_back(tiles.features.size(1));
      set.bags.push_back(std::move(bag));
    } catch (const std::exception& error) {
      left.add(bag.name, sentence_of(error));
    }
    progress.update(++done);
  }
  choose_width(options, set, widths, left);
}

void read_packed(const BagSetOptions& options, BagSet& set, LeftOut& left) {
  const CsvTable table = read_csv(options.path, {.header = "yes"});
  const std::string stem =
      options.path.substr(0, options.path.size() - std::string(".index.csv").size());
  const std::string file = stem + ".f16";
  const int64_t first = find_column(table, "", {"first_row"}, "first_row", true);
  const int64_t rows = find_column(table, "", {"rows"}, "rows", true);
  int64_t total = 0;
  for (int64_t row = 0; row < table.rows(); ++row) {
    total =
        std::max(total, static_cast<int64_t>(table.number(row, first) + table.number(row, rows)));
  }
  std::ifstream bytes(file, std::ios::binary | std::ios::ate);
  SERPENTINE_CHECK(bytes.good(), file, "cannot be opened");
  const auto size = static_cast<int64_t>(bytes.tellg());
  SERPENTINE_CHECK(total > 0 && size > 0 && size % (2 * total) == 0, file, "holds ", size,
                   " bytes, which are not ", total, " rows of float16 as ", options.path, " says");
  set.width = size / (2 * total);
  const torch::Tensor all = torch::empty({total, set.width}, torch::kHalf);
  bytes.seekg(0);
  bytes.read(static_cast<char*>(all.mutable_data_ptr()), size);
  SERPENTINE_CHECK(bytes.good(), file, "cannot be read");
  std::map<std::string, int64_t> row_of;
  const int64_t slide =
      find_column(table, options.columns.slide, {"slide_id", "slide", "bag", "name", "filename"},
                  "slide", true);
  for (int64_t row = 0; row < table.rows(); ++row)
    row_of.emplace(bag_name(std::string(table.cell(row, slide))), row);
  for (Bag& bag : described_bags(table, options, set, left)) {
    const int64_t row = row_of.at(bag.name);
    const auto from = static_cast<int64_t>(table.number(row, first)),
               count = static_cast<int64_t>(table.number(row, rows));
    try {
      TORCH_CHECK(from >= 0 && count >= 0, "first_row and rows must not be negative");
      bag.features = all.narrow(0, from, count);
      check_tiles({bag.features, {}, {}});
      set.bags.push_back(std::move(bag));
    } catch (const std::exception& error) {
      left.add(bag.name, sentence_of(error));
    }
  }
}

void read_instances(const BagSetOptions& options, BagSet& set, LeftOut& left) {
  const CsvTable table = read_csv(options.path, {.header = "no"});
  SERPENTINE_CHECK(table.columns() >= 3, options.path,
                   "rows must be: bag label, bag number, features of an instance");
  const int64_t width = table.columns() - 2;
  set.width = width;
  std::vector<std::vector<float>> rows;
  std::map<std::string, size_t> place;
  for (int64_t row = 0; row < table.rows(); ++row) {
    const std::string name(table.cell(row, 1)), label(table.cell(row, 0));
    const auto [found, fresh] = place.try_emplace(name, set.bags.size());
    if (fresh) {
      Bag bag;
      bag.name = bag.patient = name;
      bag.label = label;
      bag.time = kBagSetNone;
      set.bags.push_back(std::move(bag));
      rows.emplace_back();
    }
    if (set.bags[found->second].label != label)
      table.fail(row, 0, "bag " + name + " has two labels");
    for (int64_t column = 2; column < table.columns(); ++column)
      rows[found->second].push_back(static_cast<float>(table.number(row, column)));
  }
  std::vector<Bag> all = std::move(set.bags);
  set.bags.clear();
  for (size_t i = 0; i < all.size(); ++i) {
    all[i].features = torch::tensor(rows[i]).view({-1, width});
    try {
      check_tiles({all[i].features, {}, {}});
      set.bags.push_back(std::move(all[i]));
    } catch (const std::exception& error) {
      left.add(all[i].name, sentence_of(error));
    }
  }
}

void number_classes(const BagSetOptions& options, BagSet& set, LeftOut& left) {
  if (set.survival || !options.labelled) return;
  std::set<std::string> found;
  for (const Bag& bag : set.bags) found.insert(bag.label);
  set.classes.assign(found.begin(), found.end());
  if (!options.classes.empty()) {
    set.classes = options.classes;
    std::erase_if(set.bags, [&](const Bag& bag) {
      const bool other =
          std::find(set.classes.begin(), set.classes.end(), bag.label) == set.classes.end();
      if (other) left.add(bag.name, "its label '" + bag.label + "' is not among data.classes");
      return other;
    });
  }
  std::string counts;
  std::vector<int64_t> count(set.classes.size(), 0);
  for (const Bag& bag : set.bags)
    ++count[static_cast<size_t>(std::find(set.classes.begin(), set.classes.end(), bag.label) -
                                set.classes.begin())];
  for (size_t c = 0; c < count.size(); ++c)
    counts += (c == 0 ? "" : ", ") + set.classes[c] + " (" + std::to_string(count[c]) + ")";
  SERPENTINE_CHECK(set.classes.size() >= 2, options.path,
                   "there must be two classes at least, got ", set.classes.size(),
                   counts.empty() ? "" : ": " + counts,
                   left.sentence().empty() ? "" : "; " + left.sentence());
  set.notes.push_back("classes, with their bags: " + counts);
}

}  // namespace

void BagColumns::fields(Fields& f) {
  f("slide", slide, "names of the bags; default slide_id, slide, bag, name or filename");
  f("patient", patient, "default case_id, patient, patient_id or case; else TCGA names give it");
  f("label", label, "default label, class or target");
  f("time", time, "of survival; with it bags have no label");
  f("event", event, "1 where the event was seen");
  f("censorship", censorship, "or 1 where it was not; default censorship");
  f("site", site, "default site, center or centre");
}

void BagSetOptions::fields(Fields& f) {
  f("path", path, "table of the bags, NAME.index.csv of packed ones, or a table of instances",
    {.required = true});
  f("features", features, "folder of .h5, .pt, .safetensors or .npy, one a slide");
  f("level", level, "what is one bag: a slide, or all slides of a patient",
    {.choices = {"slide", "patient"}});
  f.group("columns", columns, "of the table");
  f("width", width, "features of a tile; bags of another width are left out; 0: the most frequent",
    {.least = 0});
  f("augmented", augmented,
    "training draws each tile from itself and its copies of `embed-slides --augment`");
  f("classes", classes, "labels in the sequence of the outputs; default all, by name");
  f("keep", keep, "features stay in memory; false: a bag is read whenever it is needed");
}

TileFeatures BagSet::read(const Bag& bag, bool copies) const {
  if (bag.features.defined()) return {bag.features.to(torch::kFloat), bag.coords, bag.copies};
  return joined(bag.files, copies);
}

BagSet read_bag_set(const BagSetOptions& options) {
  BagSet set;
  LeftOut left;
  const bool from_files = !options.path.ends_with(".index.csv") && !options.features.empty();
  SERPENTINE_CHECK(!options.augmented || from_files, options.path,
                   "data.augmented needs files of features (data.features), which hold the copies");
  set.augmented = options.augmented;
  if (options.path.ends_with(".index.csv")) {
    read_packed(options, set, left);
  } else if (!options.features.empty()) {
    read_folder(options, set, left);
  } else {
    read_instances(options, set, left);
  }
  number_classes(options, set, left);
  left.tell(set);
  SERPENTINE_CHECK(!set.bags.empty(), options.path, "no bag can be used",
                   set.notes.empty() ? "" : ": " + set.notes.back());
  return set;
}

}  // namespace serpentine
