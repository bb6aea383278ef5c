// From what a model said of bags to the numbers of a table.
#include <algorithm>
#include <cmath>
#include <set>

#include "pathology/bag_task.h"
#include "pathology/statistics.h"

namespace serpentine {
namespace {

constexpr uint64_t kSeed = 20240611;  // intervals are the same whenever they are computed

double auc_of(const BagPredictions& all, const std::vector<int64_t>& rows) {
  const size_t classes = all.logits.front().size();
  std::vector<double> areas;
  for (size_t c = classes == 2 ? 1 : 0; c < classes; ++c) {
    std::vector<double> scores;
    std::vector<bool> positive;
    for (const int64_t row : rows) {
      const auto i = static_cast<size_t>(row);
      scores.push_back(softmax_of(all.logits[i])[c]);
      positive.push_back(all.targets[i] == static_cast<int64_t>(c));
    }
    const double area = area_under_roc(scores, positive);
    if (!std::isnan(area)) areas.push_back(area);  // classes that do not occur have none
  }
  return areas.empty() ? std::nan("") : mean_of(areas);
}

double concordance_of(const BagPredictions& all, const std::vector<int64_t>& rows) {
  std::vector<double> times, risks;
  std::vector<bool> events;
  for (const int64_t row : rows) {
    const auto i = static_cast<size_t>(row);
    times.push_back(all.times[i]);
    events.push_back(all.events[i]);
    risks.push_back(risk_of(all.logits[i]));
  }
  return concordance(times, events, risks);
}

std::vector<int64_t> all_rows(size_t size) {
  std::vector<int64_t> rows(size);
  for (size_t i = 0; i < size; ++i) rows[i] = static_cast<int64_t>(i);
  return rows;
}

}  // namespace

std::vector<double> softmax_of(const std::vector<double>& logits, double temperature) {
  const double top = *std::max_element(logits.begin(), logits.end());
  std::vector<double> out;
  double sum = 0;
  for (const double one : logits) {
    out.push_back(std::exp((one - top) / temperature));
    sum += out.back();
  }
  for (double& one : out) one /= sum;
  return out;
}

double risk_of(const std::vector<double>& logits) {
  if (logits.size() == 1) return logits[0];
  double alive = 1, sum = 0;
  for (const double one : logits) {
    alive *= 1 - 1 / (1 + std::exp(-one));
    sum += alive;
  }
  return -sum;
}

std::map<std::string, double> classification_metrics(const BagPredictions& all, int64_t draws) {
  std::map<std::string, double> out;
  if (all.logits.empty()) return out;
  const size_t classes = all.logits.front().size();
  std::vector<double> right(classes), truth(classes), said(classes);
  for (size_t i = 0; i < all.logits.size(); ++i) {
    const auto& row = all.logits[i];
    const auto best = static_cast<size_t>(std::max_element(row.begin(), row.end()) - row.begin());
    const auto target = static_cast<size_t>(all.targets[i]);
    ++truth[target];
    ++said[best];
    if (best == target) ++right[best];
  }
  double correct = 0, recall = 0, f1 = 0, occurring = 0;
  for (size_t c = 0; c < classes; ++c) {
    correct += right[c];
    if (truth[c] == 0) continue;
    ++occurring;
    recall += right[c] / truth[c];
    f1 += 2 * right[c] / (truth[c] + said[c]);
  }
  out["accuracy"] = correct / static_cast<double>(all.logits.size());
  out["balanced_accuracy"] = recall / occurring;
  out["f1"] = f1 / occurring;
  const auto rows = all_rows(all.logits.size());
  out["auc"] = auc_of(all, rows);
  if (draws > 0) {
    const Interval interval =
        bootstrap(static_cast<int64_t>(rows.size()), draws, kSeed,
                  [&](const std::vector<int64_t>& drawn) { return auc_of(all, drawn); });
    out["auc_low"] = interval.low;
    out["auc_high"] = interval.high;
  }
  return out;
}

std::map<std::string, double> survival_metrics(const BagPredictions& all, int64_t draws) {
  std::map<std::string, double> out;
  if (all.logits.empty()) return out;
  const auto rows = all_rows(all.logits.size());
  out["c_index"] = concordance_of(all, rows);
  std::vector<double> risks;
  for (const auto& row : all.logits) risks.push_back(risk_of(row));
  const double median = median_of(risks);
  std::vector<bool> high;
  for (const double risk : risks) high.push_back(risk > median);
  out["log_rank_p"] = log_rank(all.times, all.events, high).p;
  if (draws > 0) {
    const Interval interval =
        bootstrap(static_cast<int64_t>(rows.size()), draws, kSeed,
                  [&](const std::vector<int64_t>& drawn) { return concordance_of(all, drawn); });
    out["c_index_low"] = interval.low;
    out["c_index_high"] = interval.high;
  }
  return out;
}

}  // namespace serpentine
