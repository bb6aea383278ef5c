#include "pathology/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace serpentine {
namespace {

constexpr double kStatisticsNone = std::numeric_limits<double>::quiet_NaN();
constexpr double kTied = 1e-8;

template <class Less>
std::vector<size_t> sorted_rows(size_t size, Less less) {
  std::vector<size_t> rows(size);
  std::iota(rows.begin(), rows.end(), size_t{0});
  std::stable_sort(rows.begin(), rows.end(), less);
  return rows;
}

double cross_entropy(const std::vector<std::vector<double>>& logits,
                     const std::vector<int64_t>& targets, double temperature) {
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double top = *std::max_element(logits[i].begin(), logits[i].end());
    double all = 0;
    for (const double one : logits[i]) all += std::exp((one - top) / temperature);
    sum += std::log(all) - (logits[i][static_cast<size_t>(targets[i])] - top) / temperature;
  }
  return sum / static_cast<double>(logits.size());
}

}  // namespace

double area_under_roc(const std::vector<double>& scores, const std::vector<bool>& positive) {
  const auto rows =
      sorted_rows(scores.size(), [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  double positives = 0, rank_sum = 0;
  for (size_t first = 0; first < rows.size();) {
    size_t end = first;
    while (end < rows.size() && scores[rows[end]] == scores[rows[first]]) ++end;
    const double rank = (static_cast<double>(first + end) + 1) / 2;  // of equal scores: their mean
    for (; first < end; ++first) {
      if (!positive[rows[first]]) continue;
      ++positives;
      rank_sum += rank;
    }
  }
  const double negatives = static_cast<double>(scores.size()) - positives;
  if (positives == 0 || negatives == 0) return kStatisticsNone;
  return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives);
}

double concordance(const std::vector<double>& times, const std::vector<bool>& events,
                   const std::vector<double>& risks) {
  double right = 0, pairs = 0;
  for (size_t i = 0; i < times.size(); ++i) {
    if (!events[i]) continue;
    for (size_t j = 0; j < times.size(); ++j) {
      const bool later = times[j] > times[i] || (times[j] == times[i] && !events[j]);
      if (!later) continue;
      ++pairs;
      const double ahead = risks[i] - risks[j];
      right += std::abs(ahead) <= kTied ? 0.5 : ahead > 0 ? 1 : 0;
    }
  }
  return pairs > 0 ? right / pairs : kStatisticsNone;
}

Interval bootstrap(int64_t size, int64_t draws, uint64_t seed,
                   const std::function<double(const std::vector<int64_t>& rows)>& statistic,
                   double level) {
  std::mt19937_64 random(seed);
  std::vector<double> values;
  std::vector<int64_t> rows(static_cast<size_t>(size));
  for (int64_t draw = 0; draw < draws && size > 0; ++draw) {
    for (auto& row : rows) row = static_cast<int64_t>(random() % static_cast<uint64_t>(size));
    const double value = statistic(rows);
    if (!std::isnan(value)) values.push_back(value);
  }
  if (values.empty()) return {kStatisticsNone, kStatisticsNone};
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    const double place = share * static_cast<double>(values.size() - 1);
    const auto low = static_cast<size_t>(place);
    const size_t high = std::min(low + 1, values.size() - 1);
    return values[low] + (place - static_cast<double>(low)) * (values[high] - values[low]);
  };
  return {at((1 - level) / 2), at((1 + level) / 2)};
}

SurvivalCurve kaplan_meier(const std::vector<double>& times, const std::vector<bool>& events) {
  const auto rows =
      sorted_rows(times.size(), [&](size_t a, size_t b) { return times[a] < times[b]; });
  SurvivalCurve curve;
  curve.time.push_back(0);
  curve.alive.push_back(1);
  double alive = 1;
  auto watched = static_cast<double>(times.size());
  for (size_t first = 0; first < rows.size();) {
    const double time = times[rows[first]];
    double died = 0, left = 0;
    for (; first < rows.size() && times[rows[first]] == time; ++first) {
      ++left;
      if (events[rows[first]]) {
        ++died;
      } else {
        curve.censored.push_back(time);
      }
    }
    if (died > 0) {
      alive *= 1 - died / watched;
      curve.time.push_back(time);
      curve.alive.push_back(alive);
    }
    watched -= left;
  }
  if (!rows.empty() && times[rows.back()] > curve.time.back()) {
    curve.time.push_back(times[rows.back()]);
    curve.alive.push_back(alive);
  }
  return curve;
}

LogRank log_rank(const std::vector<double>& times, const std::vector<bool>& events,
                 const std::vector<bool>& second_group) {
  const auto rows =
      sorted_rows(times.size(), [&](size_t a, size_t b) { return times[a] < times[b]; });
  auto watched = static_cast<double>(times.size());
  auto watched_second =
      static_cast<double>(std::count(second_group.begin(), second_group.end(), true));
  double surplus = 0, variance = 0;
  for (size_t first = 0; first < rows.size();) {
    const double time = times[rows[first]];
    double died = 0, died_second = 0, left = 0, left_second = 0;
    for (; first < rows.size() && times[rows[first]] == time; ++first) {
      const bool second = second_group[rows[first]];
      ++left;
      left_second += second ? 1 : 0;
      if (!events[rows[first]]) continue;
      ++died;
      died_second += second ? 1 : 0;
    }
    const double share = watched_second / watched;
    surplus += died_second - died * share;
    if (watched > 1) variance += died * share * (1 - share) * (watched - died) / (watched - 1);
    watched -= left;
    watched_second -= left_second;
  }
  if (variance <= 0) return {kStatisticsNone, kStatisticsNone};
  const double chi_square = surplus * surplus / variance;
  return {chi_square, std::erfc(std::sqrt(chi_square / 2))};
}

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double deviation_of(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double mean = mean_of(values);
  double sum = 0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

double median_of(std::vector<double> values) {
  if (values.empty()) return kStatisticsNone;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double fit_temperature(const std::vector<std::vector<double>>& logits,
                       const std::vector<int64_t>& targets) {
  if (logits.empty()) return 1;
  // the cross entropy has one minimum over the logarithm of the temperature: golden sections
  const double ratio = (std::sqrt(5.0) - 1) / 2;
  double low = std::log(kLeastTemperature), high = std::log(kMostTemperature);
  const auto cost = [&](double at) { return cross_entropy(logits, targets, std::exp(at)); };
  double left = high - ratio * (high - low), right = low + ratio * (high - low);
  double cost_left = cost(left), cost_right = cost(right);
  while (high - low > 1e-5) {
    if (cost_left < cost_right) {
      high = right;
      right = left;
      cost_right = cost_left;
      left = high - ratio * (high - low);
      cost_left = cost(left);
    } else {
      low = left;
      left = right;
      cost_left = cost_right;
      right = low + ratio * (high - low);
      cost_right = cost(right);
    }
  }
  return std::exp((low + high) / 2);
}

double calibration_error(const std::vector<std::vector<double>>& probabilities,
                         const std::vector<int64_t>& targets, int64_t bins) {
  std::vector<double> count(static_cast<size_t>(bins)), right(count), sure(count);
  for (size_t i = 0; i < probabilities.size(); ++i) {
    const auto& row = probabilities[i];
    const auto top = std::max_element(row.begin(), row.end());
    const auto bin = static_cast<size_t>(
        std::clamp<int64_t>(static_cast<int64_t>(*top * static_cast<double>(bins)), 0, bins - 1));
    ++count[bin];
    sure[bin] += *top;
    right[bin] += top - row.begin() == targets[i] ? 1 : 0;
  }
  double error = 0;
  for (size_t bin = 0; bin < count.size(); ++bin) error += std::abs(right[bin] - sure[bin]);
  return error / static_cast<double>(std::max<size_t>(probabilities.size(), 1));
}

}  // namespace serpentine
