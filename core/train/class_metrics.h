// Numbers that judge a classifier, from the probabilities it gave and the classes that were true.
#pragma once

#include <cstdint>
#include <vector>

#include <torch/types.h>

namespace serpentine {

/// float64 [K, K], row: the true class, column: the most probable one (the first of equals).
/// probabilities [N, K], targets int64 [N].
torch::Tensor confusion_matrix(const torch::Tensor& probabilities, const torch::Tensor& targets);

/// The area under the ROC curve of scores [N] for bool positives [N], exactly: the share of pairs
/// in the right order, ties counting half (Mann & Whitney 1947). NaN when either kind is missing.
double roc_auc(const torch::Tensor& scores, const torch::Tensor& positives);

/// roc_auc of each class against the rest, float64 [K]. Two classes share one value.
torch::Tensor roc_auc_of_classes(const torch::Tensor& probabilities, const torch::Tensor& targets);

/// Of each class of a confusion matrix, float64 [K]; NaN where a class has no true or no predicted
/// example.
struct ClassReport {
  torch::Tensor precision, recall, f1, support;
};
ClassReport class_report(const torch::Tensor& confusion);

/// Mean recall over the classes that occur.
double balanced_accuracy(const torch::Tensor& confusion);

/// Examples by the probability of their most probable class, in equal bins of (0, 1]: float64
/// [bins, 3]: count, sum of those probabilities, number of right ones. Addable.
torch::Tensor calibration_bins(const torch::Tensor& probabilities, const torch::Tensor& targets,
                               int64_t bins = 15);

/// Expected calibration error (Guo et al., arXiv 1706.04599, eq. 3) of such bins.
double calibration_error(const torch::Tensor& bins);

}  // namespace serpentine
