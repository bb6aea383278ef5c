// The tasks over bags: classification and survival, with the numbers that papers report.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/config.h"
#include "pathology/bag_model.h"

namespace serpentine {

struct ClassificationOptions {
  std::string loss = "cross_entropy", monitored = "loss";
  std::vector<double> class_weights;
  double label_smoothing = 0;
  int64_t bootstrap = 0;
  void fields(Fields& f);
};

struct SurvivalOptions {
  std::string loss = "nll", monitored = "c_index";
  double alpha = 0;
  int64_t bootstrap = 0;
  void fields(Fields& f);
};

/// What a model said of bags, on the host.
struct BagPredictions {
  std::vector<std::vector<double>> logits;
  std::vector<int64_t> targets;
  std::vector<double> times;  // of survival
  std::vector<bool> events;
};

/// softmax, of one row.
std::vector<double> softmax_of(const std::vector<double>& logits, double temperature = 1);
/// -sum of the survival, or the single logit.
double risk_of(const std::vector<double>& logits);

/// accuracy, balanced_accuracy, auc (of class 1; one-vs-rest mean with more), f1 (mean over
/// classes), and the interval of the AUC over `draws` resamples as auc_low and auc_high.
/// logits of probabilities already averaged are allowed: their logarithms.
std::map<std::string, double> classification_metrics(const BagPredictions& predictions,
                                                     int64_t draws);

/// c_index, its interval c_index_low and c_index_high, and log_rank_p of the halves above and below
/// the median risk.
std::map<std::string, double> survival_metrics(const BagPredictions& predictions, int64_t draws);

}  // namespace serpentine
