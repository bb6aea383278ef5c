#include "core/train/class_metrics.h"

#include <cmath>
#include <limits>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

void check(const torch::Tensor& probabilities, const torch::Tensor& targets, const char* who) {
  SERPENTINE_CHECK(
      probabilities.dim() == 2 && targets.dim() == 1 && probabilities.size(0) == targets.size(0),
      who, "expected probabilities [N, K] and targets [N], got ", probabilities.sizes(), " and ",
      targets.sizes());
}

}  // namespace

torch::Tensor confusion_matrix(const torch::Tensor& probabilities, const torch::Tensor& targets) {
  check(probabilities, targets, "confusion_matrix");
  const int64_t classes = probabilities.size(1);
  const auto cell = targets * classes + probabilities.argmax(1);
  return torch::bincount(cell, {}, classes * classes).to(torch::kFloat64).view({classes, classes});
}

double roc_auc(const torch::Tensor& scores, const torch::Tensor& positives) {
  const auto sorted = scores.to(torch::kCPU, torch::kFloat64).contiguous().sort();
  const auto values = std::get<0>(sorted);
  const auto hit = positives.to(torch::kCPU, torch::kBool).index_select(0, std::get<1>(sorted));
  const auto v = values.accessor<double, 1>();
  const auto p = hit.contiguous();
  const bool* is_positive = p.const_data_ptr<bool>();
  const int64_t count = values.size(0);
  double ordered = 0, below = 0, all = 0;  // below: negatives with smaller scores
  for (int64_t i = 0; i < count;) {
    double negatives = 0, hits = 0;
    const double value = v[i];
    for (; i < count && v[i] == value; ++i) (is_positive[i] ? hits : negatives) += 1;
    if (value != value) return kNone;
    ordered += hits * (below + 0.5 * negatives);
    below += negatives;
    all += hits;
  }
  return all > 0 && below > 0 ? ordered / (all * below) : kNone;
}

torch::Tensor roc_auc_of_classes(const torch::Tensor& probabilities, const torch::Tensor& targets) {
  check(probabilities, targets, "roc_auc");
  const int64_t classes = probabilities.size(1);
  auto areas = torch::full({classes}, kNone, torch::kFloat64);
  for (int64_t k = 0; k < classes; ++k)
    areas[k] = roc_auc(probabilities.select(1, k), targets.eq(k));
  return areas;
}

ClassReport class_report(const torch::Tensor& confusion) {
  const auto right = confusion.diagonal();
  ClassReport report;
  report.support = confusion.sum(1);
  report.recall = right / report.support;  // 0 / 0 is NaN: nothing to recall
  report.precision = right / confusion.sum(0);
  report.f1 = 2 * right / (confusion.sum(1) + confusion.sum(0));
  return report;
}

double balanced_accuracy(const torch::Tensor& confusion) {
  return torch::nanmean(confusion.diagonal() / confusion.sum(1)).item<double>();
}

torch::Tensor calibration_bins(const torch::Tensor& probabilities, const torch::Tensor& targets,
                               int64_t bins) {
  check(probabilities, targets, "calibration_bins");
  const auto [top, guess] = probabilities.to(torch::kFloat64).max(1);
  const auto bin =
      ((top * static_cast<double>(bins)).ceil() - 1).clamp(0, bins - 1).to(torch::kLong);
  const auto rows =
      torch::stack({torch::ones_like(top), top, guess.eq(targets).to(torch::kFloat64)}, 1);
  // one-hot product instead of index_add: the same bits on a GPU, too
  const auto member = bin.unsqueeze(0).eq(torch::arange(bins, bin.options()).unsqueeze(1));
  return member.to(torch::kFloat64).mm(rows);
}

double calibration_error(const torch::Tensor& bins) {
  const auto gap = (bins.select(1, 2) - bins.select(1, 1)).abs().sum();
  return (gap / bins.select(1, 0).sum()).item<double>();
}

}  // namespace serpentine
