#include "segmentation/part_rules.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <stdexcept>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/io/atomic_file.h"
#include "core/io/json_file.h"
#include "core/io/progress.h"
#include "segmentation/distance.h"
#include "segmentation/predict.h"
#include "segmentation/prepare.h"
#include "segmentation/volume.h"

namespace serpentine {
namespace {

constexpr double kBetter = 1e-6;  // of a mean Dice; the plainest of equal rules is taken

std::string values_text(const std::vector<int64_t>& values) {
  std::string text;
  for (size_t i = 0; i < values.size(); ++i)
    text += (i == 0 ? "" : i + 1 == values.size() ? " and " : ", ") + std::to_string(values[i]);
  return text;
}

/// Dice of each class; not a number where neither has a voxel.
std::vector<double> dice_of_classes(const SegmentationPlan& plan, const torch::Tensor& guess,
                                    const torch::Tensor& truth) {
  std::vector<double> dice;
  for (int64_t k = plan.regions ? 0 : 1; k < plan.classes; ++k) {
    const auto of = [&](const torch::Tensor& classes) {
      return plan.regions ? classes.clamp_min(0).bitwise_and(int64_t{1} << k).ne(0) : classes.eq(k);
    };
    const auto a = of(guess), b = of(truth);
    const double whole = (a.sum() + b.sum()).item<double>();
    dice.push_back(whole > 0 ? 2 * (a & b).sum().item<double>() / whole : std::nan(""));
  }
  return dice;
}

/// For each set of rules the mean Dice of each class over the cases.
std::vector<std::vector<double>> score_rules(const std::vector<CasePair>& pairs,
                                             const SegmentationPlan& plan,
                                             const std::vector<PartRules>& sets) {
  const auto classes = static_cast<size_t>(plan.classes - (plan.regions ? 0 : 1));
  std::vector<std::vector<double>> sums(sets.size(), std::vector<double>(classes)), counts = sums;
  Progress progress("rules", static_cast<int64_t>(pairs.size()));
  int64_t done = 0;
  for (const auto& pair : pairs) {
    progress.update(done++);  // those before it
    torch::Tensor values, truth;
    try {
      const Volume place = read_volume(pair.truth);
      truth = to_classes(plan, read_labels(pair.truth, place, plan.label_scale), pair.truth);
      values = read_prediction(pair.guess, place, plan.label_scale);
    } catch (const std::exception&) {
      continue;  // the evaluation reports it
    }
    const auto ignored = truth.lt(0);
    for (size_t s = 0; s < sets.size(); ++s) {
      const auto guess =
          to_classes(plan, with_rules(values, sets[s]), pair.guess).masked_fill(ignored, 0);
      const auto dice = dice_of_classes(plan, guess, truth);
      for (size_t k = 0; k < classes; ++k) {
        if (!std::isfinite(dice[k])) continue;
        sums[s][k] += dice[k];
        counts[s][k] += 1;
      }
    }
  }
  progress.update(done);
  progress.finish();
  for (size_t s = 0; s < sets.size(); ++s) {
    for (size_t k = 0; k < classes; ++k)
      sums[s][k] = counts[s][k] > 0 ? sums[s][k] / counts[s][k] : std::nan("");
  }
  return sums;
}

/// Some class gains and none loses.
bool helps(const std::vector<double>& with, const std::vector<double>& without) {
  bool gains = false;
  for (size_t k = 0; k < with.size(); ++k) {
    if (with[k] < without[k] - kBetter) return false;
    gains = gains || with[k] > without[k] + kBetter;
  }
  return gains;
}

/// Adds to `list` (a part of `rules`) every value that gains by it, each judged alone.
void choose_values(const std::vector<CasePair>& pairs, const SegmentationPlan& plan,
                   PartRules& rules, std::vector<int64_t> PartRules::* list) {
  const auto values = written_values(plan);
  std::vector<PartRules> sets = {rules};
  for (const int64_t value : values) {
    sets.push_back(rules);
    (sets.back().*list).push_back(value);
  }
  const auto scores = score_rules(pairs, plan, sets);
  for (size_t i = 0; i < values.size(); ++i)
    if (helps(scores[i + 1], scores[0])) (rules.*list).push_back(values[i]);
}

std::string rules_file(const std::string& folder) { return folder + "/postprocess.json"; }

}  // namespace

std::string rules_text(const PartRules& rules) {
  std::string text = rules.foreground ? "the largest part of all labels together" : "";
  const auto add = [&](const char* what, const std::vector<int64_t>& values) {
    if (!values.empty())
      text += (text.empty() ? "" : "; ") + std::string(what) + values_text(values);
  };
  add("the largest part of ", rules.largest);
  add("holes of ", rules.fill_holes);
  return text.empty() ? "none" : text;
}

void apply_rules(torch::Tensor& labels, const PartRules& rules) {
  const auto keep_largest = [&](torch::Tensor mask) {
    const auto kept = largest_component(mask);
    labels.masked_fill_(mask.logical_xor_(kept), 0);  // the smaller parts
  };
  if (rules.foreground) keep_largest(labels.ne(0));
  for (const int64_t value : rules.largest) keep_largest(labels.eq(value));
  for (const int64_t value : rules.fill_holes) {
    auto mask = labels.eq(value);
    auto whole = without_holes(mask);
    at::eq_out(mask, labels, 0);  // other labels stay
    labels.masked_fill_(whole.logical_and_(mask), value);
  }
}

int64_t rules_memory(int64_t voxels, const PartRules& rules) {
  return rules.none() ? 0 : voxels + parts_memory(voxels);  // a mask
}

torch::Tensor with_rules(const torch::Tensor& labels, const PartRules& rules) {
  if (rules.none()) return labels;
  auto made = labels.clone();
  apply_rules(made, rules);
  return made;
}

std::vector<int64_t> written_values(const SegmentationPlan& plan) {
  std::vector<int64_t> values = plan.region_order;
  if (!plan.regions) {
    values.clear();
    for (const auto& text : plan.values) values.push_back(std::stoll(text));
  }
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  std::erase(values, 0);
  return values;
}

RuleChoice choose_rules(const std::vector<CasePair>& pairs, const SegmentationPlan& plan) {
  RuleChoice choice;
  PartRules all;
  all.foreground = true;
  const auto first = score_rules(pairs, plan, {PartRules{}, all});
  choice.before = first[0];
  if (helps(first[1], first[0])) choice.rules = all;
  choose_values(pairs, plan, choice.rules, &PartRules::largest);
  choose_values(pairs, plan, choice.rules, &PartRules::fill_holes);
  choice.after = choice.rules.none() ? first[0] : score_rules(pairs, plan, {choice.rules})[0];
  for (size_t k = 0; k < choice.before.size(); ++k) {
    char line[160];
    std::snprintf(line, sizeof line, "%-24s Dice %.5f, with the rules %.5f\n",
                  plan.class_names[k + (plan.regions ? 0 : 1)].c_str(), choice.before[k],
                  choice.after[k]);
    choice.table += line;
  }
  choice.table += "rules: " + rules_text(choice.rules) + "\n";
  return choice;
}

PartRules read_rules(const std::string& folder) {
  const std::string path = rules_file(folder);
  PartRules rules;
  if (!std::filesystem::exists(path)) return rules;
  const auto json = read_json(path);
  try {
    rules.foreground = json.at("foreground").get<bool>();
    rules.largest = json.at("largest").get<std::vector<int64_t>>();
    rules.fill_holes = json.at("fill_holes").get<std::vector<int64_t>>();
  } catch (const nlohmann::json::exception&) {
    throw std::runtime_error(path + ": is damaged; it needs foreground, largest and fill_holes");
  }
  return rules;
}

void write_rules(const std::string& folder, const PartRules& rules) {
  const nlohmann::json json = {{"foreground", rules.foreground},
                               {"largest", rules.largest},
                               {"fill_holes", rules.fill_holes}};
  write_atomically(rules_file(folder), json.dump(1) + "\n");
}

}  // namespace serpentine
