// From the folds of a cross-validation to its tables: predictions of each fold, their mean and
// deviation, and all of them together.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "pathology/bag_source.h"
#include "pathology/bag_task.h"

namespace serpentine {

struct NamedPredictions {
  std::vector<std::string> names;
  BagPredictions all;
};

/// The model's logits of every bag, in evaluation mode, one bag at a time.
NamedPredictions predict_bags(BagModel& model, const BagDataset& bags, torch::Device device);

/// A row a bag: name, target, time and event (survival), logits, and probabilities at this
/// temperature. Written atomically; read back with the same numbers.
void write_predictions(const std::string& path, const NamedPredictions& predictions, bool survival,
                       double temperature);
NamedPredictions read_predictions(const std::string& path, bool survival);

struct FoldResult {
  int64_t fold = 0;
  double temperature = 1;
  NamedPredictions test;
  std::map<std::string, double> metrics;  // of the test bags
};

/// Of classification: classification_metrics, and the calibration error before and after the
/// temperature. Of survival: survival_metrics.
std::map<std::string, double> fold_metrics(const NamedPredictions& test, bool survival,
                                           double temperature);

/// Every bag once, its name's calibrated probabilities (or risks) averaged over the folds that
/// tested it.
NamedPredictions ensemble(const std::vector<FoldResult>& folds, bool survival);

/// Columns fold and metrics; then rows mean, sd and pooled (the ensemble's, with intervals).
struct SummaryTable {
  std::vector<std::string> columns;
  std::vector<std::pair<std::string, std::vector<double>>> rows;
  std::string csv() const;
  std::string markdown() const;  // three decimals
};
SummaryTable summarize(const std::vector<FoldResult>& folds, bool survival, int64_t draws);

/// Draws Kaplan-Meier curves of the bags above and below their fold's median risk to stem.png and
/// stem.svg. Returns a sentence: the log-rank test, and why there is no picture if there is none.
std::string draw_survival(const std::vector<FoldResult>& folds, const std::string& stem);

}  // namespace serpentine
