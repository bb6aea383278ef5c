#include "pathology/bag_table.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr size_t kNamed = 3;  // names in a sentence

/// The first twelve characters of a TCGA barcode name the patient.
std::string patient_of(const std::string& slide) {
  const bool barcode =
      slide.size() > 12 && slide.rfind("TCGA-", 0) == 0 && slide[7] == '-' && slide[12] == '-';
  return barcode ? slide.substr(0, 12) : slide;
}

}  // namespace

void LeftOut::add(const std::string& name, const std::string& why) {
  all_.emplace_back(name, why);
  if (all_.size() <= kNamed) text_ += (text_.empty() ? "" : "; ") + name + " (" + why + ")";
}

std::string LeftOut::sentence() const {
  if (all_.empty()) return "";
  return std::to_string(all_.size()) + (all_.size() == 1 ? " bag is" : " bags are") +
         " left out: " + text_ + (all_.size() > kNamed ? "; ..." : "");
}

void LeftOut::tell(BagSet& set) const {
  if (!all_.empty()) set.notes.push_back(sentence());
  set.left_out = all_;
}

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

std::string bag_name(std::string slide) {
  if (slide.ends_with(".svs")) slide.resize(slide.size() - 4);
  return slide;
}

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
    bag.name = bag_name(text(slide));
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

}  // namespace serpentine
