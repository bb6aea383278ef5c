// Rules on the connected parts of predicted labels, and their choice on held-out cases.
//
// nnU-Net (Isensee et al., Nature Methods 2021): all but the largest part is removed where that
// helps on cases that no network of the folds has trained on. A rule is taken when the mean Dice
// rises and no class loses: first for all labels together, then for each label; then holes.
#pragma once

#include <string>
#include <vector>

#include <torch/types.h>

#include "segmentation/evaluation.h"
#include "segmentation/plan.h"

namespace serpentine {

struct PartRules {
  bool foreground = false;          // the largest part of all labels together is kept
  std::vector<int64_t> largest;     // values of which the largest part is kept
  std::vector<int64_t> fill_holes;  // values whose holes, where no label is, are filled

  bool none() const { return !foreground && largest.empty() && fill_holes.empty(); }
  bool operator==(const PartRules&) const = default;
};

/// "the largest part of 1 and 2; holes of 1", or "none".
std::string rules_text(const PartRules& rules);

/// In place and in the sequence foreground, largest, fill_holes. labels: values as the plan has
/// them, [D, H, W].
void apply_rules(torch::Tensor& labels, const PartRules& rules);

/// Bytes that this takes beside the labels.
int64_t rules_memory(int64_t voxels, const PartRules& rules);

/// A copy of labels that the rules were applied to; where there are none, the labels themselves.
torch::Tensor with_rules(const torch::Tensor& labels, const PartRules& rules);

/// The values that predictions of a plan hold, without the background.
std::vector<int64_t> written_values(const SegmentationPlan& plan);

struct RuleChoice {
  PartRules rules;
  std::string table;                  // the Dice of each class without and with the rules
  std::vector<double> before, after;  // mean Dice of each class; not a number where none has it
};

/// Reads every pair up to four times. Cases whose files cannot be read are left out.
RuleChoice choose_rules(const std::vector<CasePair>& pairs, const SegmentationPlan& plan);

/// The rules that a run's folder keeps (postprocess.json); none where there is no such file. Throws
/// "FILE: why".
PartRules read_rules(const std::string& folder);
void write_rules(const std::string& folder, const PartRules& rules);

}  // namespace serpentine
