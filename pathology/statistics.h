// Numbers that papers report of bags: areas under curves, concordance, survival curves, intervals.
//
// Plain vectors on the host, float64; everything that draws takes its seed.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace serpentine {

/// The area under the ROC curve: the probability that a positive scores above a negative, ties
/// half. NaN without either kind.
double area_under_roc(const std::vector<double>& scores, const std::vector<bool>& positive);

/// Harrell's concordance: pairs whose earlier one had the event; the higher risk must be the
/// earlier. Risks closer than 1e-8 count half. NaN without such pairs.
double concordance(const std::vector<double>& times, const std::vector<bool>& events,
                   const std::vector<double>& risks);

struct Interval {
  double low = 0, high = 0;
};

/// The percentile interval of a statistic over `draws` resamples of `size` rows with replacement.
/// Resamples without a value (NaN) are left out. Efron 1979.
Interval bootstrap(int64_t size, int64_t draws, uint64_t seed,
                   const std::function<double(const std::vector<int64_t>& rows)>& statistic,
                   double level = 0.95);

/// A survival curve's steps (Kaplan & Meier 1958): from (0, 1), one at each time with an event, and
/// the end of follow-up.
struct SurvivalCurve {
  std::vector<double> time, alive;
  std::vector<double> censored;  // times at which follow-up ended
};
SurvivalCurve kaplan_meier(const std::vector<double>& times, const std::vector<bool>& events);

/// Two groups' difference in survival (Mantel 1966): chi-square with one degree of freedom and its
/// p. NaN without events.
struct LogRank {
  double chi_square = 0, p = 1;
};
LogRank log_rank(const std::vector<double>& times, const std::vector<bool>& events,
                 const std::vector<bool>& second_group);

double mean_of(const std::vector<double>& values);
/// Of a sample (n - 1); 0 for one value.
double deviation_of(const std::vector<double>& values);
double median_of(std::vector<double> values);

/// Where fit_temperature looks.
inline constexpr double kLeastTemperature = 0.05, kMostTemperature = 20;

/// The temperature that minimises the cross entropy of logits / temperature (Guo et al., 2017).
/// logits: a row a bag; 1 without bags.
double fit_temperature(const std::vector<std::vector<double>>& logits,
                       const std::vector<int64_t>& targets);

/// The expected calibration error over equal bins of the highest probability.
double calibration_error(const std::vector<std::vector<double>>& probabilities,
                         const std::vector<int64_t>& targets, int64_t bins = 10);

}  // namespace serpentine
