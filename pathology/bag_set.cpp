#include "pathology/bag_set.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>

#include <torch/torch.h>

#include "core/check.h"
#include "core/io/csv.h"
#include "core/io/progress.h"

namespace serpentine {
namespace {

constexpr double kBagSetNone = std::numeric_limits<double>::quiet_NaN();
constexpr size_t kNamed = 3;  // names in a sentence

int64_t find_column(const CsvTable& table, const std::string& chosen,
                    const std::vector<std::string>& usual, const char* what, bool needed) {
  const auto at = [&](const std::string& name) {
    const auto found = std::find(table.names.begin(), table.names.end(), name);
    return found == table.names.end() ? int64_t{-1} : found - table.names.begin();
  };
  if (!chosen.empty()) {
    SERPENTINE_CHECK(at(chosen) >= 0, table.path(), "there is no column '", chosen, "' (columns.",
                     what, ")");
    return at(chosen);
  }
  for (const auto& name : usual) {
    if (at(name) >= 0) return at(name);
  }
  SERPENTINE_CHECK(!needed, table.path(), "which column is the ", what, "? Set columns.", what);
  return -1;
}

/// The first twelve characters of a TCGA barcode name the patient.
std::string patient_of(const std::string& slide) {
  const bool barcode =
      slide.size() > 12 && slide.rfind("TCGA-", 0) == 0 && slide[7] == '-' && slide[12] == '-';
  return barcode ? slide.substr(0, 12) : slide;
}

std::string plain_name(std::string slide) {
  if (slide.ends_with(".svs")) slide.resize(slide.size() - 4);
  return slide;
}

/// "3 bags are left out: a (why), b (why), ..."
class LeftOut {
 public:
  void add(const std::string& name, const std::string& why) {
    all_.emplace_back(name, why);
    if (++count_ <= kNamed) text_ += (text_.empty() ? "" : "; ") + name + " (" + why + ")";
  }
  /// "" when there is none.
  std::string sentence() const {
    if (count_ == 0) return "";
    return std::to_string(count_) + (count_ == 1 ? " bag is" : " bags are") +
           " left out: " + text_ + (count_ > kNamed ? "; ..." : "");
  }
  void tell(BagSet& set) const {
    if (count_ > 0) set.notes.push_back(sentence());
    set.left_out = all_;
  }

 private:
  std::vector<std::pair<std::string, std::string>> all_;
  size_t count_ = 0;
  std::string text_;
};

std::string sentence_of(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  std::string text = torch_error ? torch_error->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

/// The rows of a table as bags without tiles.
std::vector<Bag> described_bags(const CsvTable& table, const BagSetOptions& options, BagSet& set,
                                LeftOut& left) {
  const BagColumns& columns = options.columns;
  const int64_t slide = find_column(
      table, columns.slide, {"slide_id", "slide", "bag", "name", "filename"}, "slide", true);
  const int64_t patient = find_column(
      table, columns.patient, {"case_id", "patient", "patient_id", "case"}, "patient", false);
  const int64_t site =
      find_column(table, columns.site, {"site", "center", "centre"}, "site", false);
  const int64_t time = options.labelled ? find_column(table, columns.time, {}, "time", false) : -1;
  const int64_t label =
      time >= 0 || !options.labelled
          ? -1
          : find_column(table, columns.label, {"label", "class", "target"}, "label", true);
  const int64_t event = time >= 0 ? find_column(table, columns.event, {}, "event", false) : -1;
  const int64_t censored = time >= 0 && event < 0 ? find_column(table, columns.censorship,
                                                                {"censorship"}, "censorship", true)
                                                  : -1;
  std::vector<int64_t> folds;
  for (int64_t k = 0;; ++k) {
    const auto found =
        std::find(table.names.begin(), table.names.end(), "fold" + std::to_string(k));
    if (found == table.names.end()) break;
    folds.push_back(found - table.names.begin());
  }
  if (folds.empty()) {
    const int64_t split = find_column(table, "", {"split"}, "split", false);
    if (split >= 0) folds.push_back(split);
  }
  set.survival = time >= 0;
  std::set<std::string> seen;
  std::vector<Bag> bags;
  for (int64_t row = 0; row < table.rows(); ++row) {
    Bag bag;
    const auto text = [&](int64_t column) {
      return column < 0 ? std::string() : std::string(table.cell(row, column));
    };
    bag.name = plain_name(text(slide));
    if (bag.name.empty()) {
      left.add(table.place(row, slide), "it has no name");
      continue;
    }
    bag.patient = patient >= 0 && !text(patient).empty() ? text(patient) : patient_of(bag.name);
    bag.site = text(site);
    bag.label = text(label);
    for (const int64_t fold : folds) bag.parts.push_back(text(fold));
    if (!seen.insert(bag.name).second) {
      left.add(bag.name, "a second row of this name");
      continue;
    }
    if (set.survival) {
      bag.time = table.number(row, time);
      const double seen_event =
          event >= 0 ? table.number(row, event) : 1 - table.number(row, censored);
      bag.event = seen_event > 0.5;
      if (!(bag.time >= 0) || std::isnan(seen_event)) {
        left.add(bag.name, "no time or event");
        continue;
      }
    } else if (options.labelled && bag.label.empty()) {
      left.add(bag.name, "no label");
      continue;
    }
    bags.push_back(std::move(bag));
  }
  if (patient < 0)
    set.notes.push_back("there is no column of patients; " +
                        std::string("TCGA names give them, other bags are patients of their own"));
  return bags;
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

TileFeatures joined(const std::vector<std::string>& files) {
  std::vector<torch::Tensor> features, coords;
  for (const auto& file : files) {
    TileFeatures part = read_tile_features(file);
    if (part.features.size(0) == 0) continue;
    features.push_back(part.features);
    if (part.coords.defined()) coords.push_back(part.coords);
  }
  if (features.empty()) return {torch::empty({0, 0}), {}};
  if (features.size() == 1) return {features[0], coords.empty() ? torch::Tensor() : coords[0]};
  return {torch::cat(features),
          coords.size() == features.size() ? torch::cat(coords) : torch::Tensor()};
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
      TileFeatures tiles = joined(bag.files);
      check_tiles(tiles);
      if (options.keep) {
        bag.features = tiles.features;
        bag.coords = tiles.coords;
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
    row_of.emplace(plain_name(std::string(table.cell(row, slide))), row);
  for (Bag& bag : described_bags(table, options, set, left)) {
    const int64_t row = row_of.at(bag.name);
    const auto from = static_cast<int64_t>(table.number(row, first)),
               count = static_cast<int64_t>(table.number(row, rows));
    try {
      TORCH_CHECK(from >= 0 && count >= 0, "first_row and rows must not be negative");
      bag.features = all.narrow(0, from, count);
      check_tiles({bag.features, {}});
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
      check_tiles({all[i].features, {}});
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
  f("classes", classes, "labels in the sequence of the outputs; default all, by name");
  f("keep", keep, "features stay in memory; false: a bag is read whenever it is needed");
}

TileFeatures BagSet::read(const Bag& bag) const {
  if (bag.features.defined()) return {bag.features.to(torch::kFloat), bag.coords};
  return joined(bag.files);
}

BagSet read_bag_set(const BagSetOptions& options) {
  BagSet set;
  LeftOut left;
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
