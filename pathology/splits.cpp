#include "pathology/splits.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "core/check.h"
#include "core/data/loader.h"

namespace serpentine {
namespace {

constexpr std::array<const char*, 3> kParts = {"train", "val", "test"};

/// Bags that must stay together, in an order drawn by the seed.
struct Group {
  std::string name;
  std::vector<int64_t> bags;
  int64_t stratum = 0;  // of most of its bags
};

int64_t most_frequent(const std::vector<int64_t>& values) {
  std::map<int64_t, int64_t> counts;
  for (const int64_t value : values) ++counts[value];
  return std::max_element(counts.begin(), counts.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

std::vector<Group> drawn_groups(const std::vector<BagInfo>& bags, const SplitOptions& options,
                                int64_t seed) {
  std::map<std::string, Group> by_name;
  for (size_t i = 0; i < bags.size(); ++i) {
    const BagInfo& bag = bags[i];
    const std::string& name = options.group == "site"      ? bag.site
                              : options.group == "patient" ? bag.patient
                                                           : bag.name;
    SERPENTINE_CHECK(!name.empty(), bag.name, "the bag has no ", options.group);
    by_name[name].bags.push_back(static_cast<int64_t>(i));
  }
  std::vector<Group> named, drawn;
  for (auto& [name, group] : by_name) {
    std::vector<int64_t> strata;
    for (const int64_t bag : group.bags) strata.push_back(bags[static_cast<size_t>(bag)].stratum);
    group.name = name;
    group.stratum = options.stratify ? most_frequent(strata) : 0;
    named.push_back(std::move(group));
  }
  for (const int64_t place : permutation(static_cast<int64_t>(named.size()), seed, 0))
    drawn.push_back(std::move(named[static_cast<size_t>(place)]));
  // large groups first: small ones even out what they leave
  std::stable_sort(drawn.begin(), drawn.end(),
                   [](const Group& a, const Group& b) { return a.bags.size() > b.bags.size(); });
  return drawn;
}

/// The fold of each group: the one with the fewest bags of its stratum, then with the fewest bags.
std::vector<int64_t> dealt(const std::vector<Group>& groups, int64_t folds) {
  std::map<int64_t, std::vector<int64_t>> of_stratum;
  std::vector<int64_t> all(static_cast<size_t>(folds), 0), fold_of;
  for (const Group& group : groups) {
    auto& own = of_stratum.try_emplace(group.stratum, static_cast<size_t>(folds), 0).first->second;
    size_t best = 0;
    for (size_t fold = 1; fold < own.size(); ++fold) {
      if (std::pair(own[fold], all[fold]) < std::pair(own[best], all[best])) best = fold;
    }
    own[best] += static_cast<int64_t>(group.bags.size());
    all[best] += static_cast<int64_t>(group.bags.size());
    fold_of.push_back(static_cast<int64_t>(best));
  }
  return fold_of;
}

/// Takes groups for `share` of each stratum's bags; they leave `groups`.
std::vector<int64_t> taken(std::vector<Group>& groups, double share, int64_t total) {
  std::map<int64_t, double> wanted, had;
  std::map<int64_t, int64_t> bags_of;
  int64_t present = 0;
  for (const Group& group : groups) {
    bags_of[group.stratum] += static_cast<int64_t>(group.bags.size());
    present += static_cast<int64_t>(group.bags.size());
  }
  const double scale =
      present > 0 ? share * static_cast<double>(total) / static_cast<double>(present) : 0;
  for (const auto& [stratum, count] : bags_of) wanted[stratum] = scale * static_cast<double>(count);
  std::vector<int64_t> rows;
  std::vector<Group> left;
  for (Group& group : groups) {
    const double after = had[group.stratum] + static_cast<double>(group.bags.size());
    if (after <= wanted[group.stratum] + 0.5) {
      had[group.stratum] = after;
      rows.insert(rows.end(), group.bags.begin(), group.bags.end());
    } else {
      left.push_back(std::move(group));
    }
  }
  groups = std::move(left);
  return rows;
}

std::vector<int64_t> rows_of(const std::vector<Group>& groups) {
  std::vector<int64_t> rows;
  for (const Group& group : groups) rows.insert(rows.end(), group.bags.begin(), group.bags.end());
  return rows;
}

Split drawn_split(const std::vector<BagInfo>& bags, const SplitOptions& options) {
  const auto total = static_cast<int64_t>(bags.size());
  const bool folds = options.scheme == "kfold";
  std::vector<Group> groups =
      drawn_groups(bags, options, folds ? options.seed : options.seed + 1 + options.fold);
  Split split;
  if (folds) {
    SERPENTINE_CHECK(static_cast<int64_t>(groups.size()) >= options.folds, "splits", options.folds,
                     " folds need as many groups, there are ", groups.size());
    const auto fold_of = dealt(groups, options.folds);
    std::vector<Group> rest;
    for (size_t i = 0; i < groups.size(); ++i) {
      if (fold_of[i] == options.fold) {
        split.test.insert(split.test.end(), groups[i].bags.begin(), groups[i].bags.end());
      } else {
        rest.push_back(std::move(groups[i]));
      }
    }
    // each fold holds out others for validation
    groups.clear();
    for (const int64_t place :
         permutation(static_cast<int64_t>(rest.size()), options.seed + 1 + options.fold, 0))
      groups.push_back(std::move(rest[static_cast<size_t>(place)]));
  } else {
    split.test = taken(groups, options.test, total);
  }
  split.validation = taken(groups, options.validation, total);
  split.train = rows_of(groups);
  return split;
}

Split split_of_columns(const std::vector<BagInfo>& bags, const SplitOptions& options) {
  Split split;
  for (size_t i = 0; i < bags.size(); ++i) {
    SERPENTINE_CHECK(options.fold < static_cast<int64_t>(bags[i].parts.size()), bags[i].name,
                     "the table has columns for ", bags[i].parts.size(), " folds, not for fold ",
                     options.fold);
    const std::string& part = bags[i].parts[static_cast<size_t>(options.fold)];
    if (part == "train" || part == "training") split.train.push_back(static_cast<int64_t>(i));
    if (part.rfind("val", 0) == 0) split.validation.push_back(static_cast<int64_t>(i));
    if (part == "test") split.test.push_back(static_cast<int64_t>(i));
  }
  return split;
}

void check_patients(const Split& split, const std::vector<BagInfo>& bags,
                    const SplitOptions& options, const std::string& who,
                    std::vector<std::string>* notes) {
  std::map<std::string, std::set<size_t>> parts_of;
  const auto add = [&](const std::vector<int64_t>& rows, size_t part) {
    for (const int64_t row : rows) parts_of[bags[static_cast<size_t>(row)].patient].insert(part);
  };
  add(split.train, 0);
  add(split.validation, 1);
  add(split.test, 2);
  std::string named;
  int64_t shared = 0;
  for (const auto& [patient, parts] : parts_of) {
    if (parts.size() < 2) continue;
    if (++shared > 3) continue;
    named += (named.empty() ? "" : ", ") + patient + " (";
    for (const size_t part : parts)
      named += (named.back() == '(' ? "" : " and ") + std::string(kParts[part]);
    named += ")";
  }
  if (shared == 0) return;
  const std::string sentence = "fold " + std::to_string(options.fold) + ": " +
                               std::to_string(shared) +
                               (shared == 1 ? " patient is" : " patients are") +
                               " in two parts: " + named + (shared > 3 ? ", ..." : "");
  SERPENTINE_CHECK(options.shared_patients, who, sentence,
                   "; results would be too good. splits.shared_patients: true allows it");
  if (notes) notes->push_back(sentence + " (allowed)");
}

}  // namespace

void SplitOptions::fields(Fields& f) {
  f("scheme", scheme,
    "kfold: each bag is tested once; monte_carlo: every fold draws anew; files: splits_<fold>.csv "
    "in `path`; columns: fold0, fold1, ... (or split) of the table",
    {.choices = {"kfold", "monte_carlo", "files", "columns"}});
  f("path", path, "folder of splits_<fold>.csv, as CLAM and MambaMIL write them");
  f("folds", folds, "parts of kfold", {.least = 2});
  f("fold", fold, "the one that is tested", {.least = 0});
  f("validation", validation, "part of the bags held out for validation",
    {.least = 0, .most = 0.9});
  f("test", test, "part of the bags tested by monte_carlo", {.least = 0, .most = 0.9});
  f("seed", seed, "of what is drawn");
  f("group", group, "what stays together in one part", {.choices = {"patient", "site", "bag"}});
  f("stratify", stratify, "every part gets its share of each class");
  f("shared_patients", shared_patients, "allow a patient in two parts (published folds may do so)");
}

const std::vector<int64_t>& Split::of(Part part) const {
  return part == Part::kTrain ? train : part == Part::kTest ? test : validation;
}

Split make_split(const std::vector<BagInfo>& bags, const SplitOptions& options,
                 const std::string& who, std::vector<std::string>* notes) {
  Split split;
  if (options.scheme == "files") {
    const auto file =
        std::filesystem::path(options.path) / ("splits_" + std::to_string(options.fold) + ".csv");
    split = read_split(file.string(), bags, notes);
  } else if (options.scheme == "columns") {
    split = split_of_columns(bags, options);
  } else {
    SERPENTINE_CHECK(options.scheme != "kfold" || options.fold < options.folds, who,
                     "fold must be below folds = ", options.folds, ", got ", options.fold);
    split = drawn_split(bags, options);
  }
  for (auto* rows : {&split.train, &split.validation, &split.test})
    std::sort(rows->begin(), rows->end());
  check_patients(split, bags, options, who, notes);
  return split;
}

}  // namespace serpentine
