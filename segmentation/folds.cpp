#include "segmentation/folds.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <c10/util/Exception.h>

#include "core/data/loader.h"

namespace serpentine {

CaseSplit split_cases(const CaseList& list, int64_t folds, int64_t fold, double validation,
                      int64_t seed) {
  TORCH_CHECK(fold < folds, list.path, ": fold must be below folds = ", folds, ", got ", fold);
  CaseSplit split;
  std::map<std::string, std::vector<CaseFiles>> groups;
  for (const auto& one : list.cases) {
    if (one.split == "test") {
      split.test.push_back(one);
    } else if (one.split == "validation") {
      split.validation.push_back(one);
    } else {
      groups[one.group].push_back(one);
    }
  }
  std::vector<std::string> names;
  for (const auto& [name, cases] : groups) names.push_back(name);
  const auto count = static_cast<int64_t>(names.size());
  const bool tested = !split.test.empty() || !split.validation.empty();
  TORCH_CHECK(!tested || fold <= 0, list.path, ": the data name their own ",
              split.test.empty() ? "validation" : "test",
              " cases, so that every fold would be the same; train once, with fold = 0, got ",
              fold);
  const auto held = static_cast<int64_t>(std::llround(validation * static_cast<double>(count)));
  const auto order = permutation(count, seed, 0);
  for (int64_t i = 0; i < count; ++i) {
    const bool out = tested ? i < held : fold >= 0 && i % folds == fold;
    auto& part = out ? split.validation : split.train;
    const auto& cases = groups[names[static_cast<size_t>(order[static_cast<size_t>(i)])]];
    part.insert(part.end(), cases.begin(), cases.end());
  }
  for (auto* part : {&split.train, &split.validation, &split.test}) {
    std::sort(part->begin(), part->end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
  }
  TORCH_CHECK(!split.train.empty(), list.path, ": no case is left to train on; there are ", count,
              " and ", folds, " folds", first_notes(list.notes));
  return split;
}

}  // namespace serpentine
