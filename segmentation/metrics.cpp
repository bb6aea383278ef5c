#include "segmentation/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

double share(double part, double whole) { return whole > 0 ? part / whole : kNone; }

/// Linear between the two nearest ranks, as NumPy's.
double distance_percentile(std::vector<float>& values, double percent) {
  const double rank = percent / 100 * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(std::floor(rank)),
             high = std::min(low + 1, values.size() - 1);
  const double between = rank - std::floor(rank);
  return (1 - between) * static_cast<double>(values[low]) +
         between * static_cast<double>(values[high]);
}

std::vector<float> sorted_values(const torch::Tensor& distances, const torch::Tensor& surface) {
  const auto picked = distances.masked_select(surface).contiguous();
  std::vector<float> values(picked.const_data_ptr<float>(),
                            picked.const_data_ptr<float>() + picked.numel());
  std::sort(values.begin(), values.end());
  return values;
}

/// The box of both masks: surfaces lie inside it, so nothing beyond matters.
void crop(torch::Tensor& a, torch::Tensor& b) {
  const auto both = a | b;
  for (int64_t axis = 0; axis < 3; ++axis) {
    const auto along = both.any(axis == 0 ? 2 : 0).any(axis == 2 ? 0 : 1).nonzero().flatten();
    if (along.numel() == 0 || both.size(axis) == 1) continue;
    const int64_t begin = std::max<int64_t>(0, along[0].item<int64_t>() - 1);
    const int64_t end = std::min(both.size(axis), along[-1].item<int64_t>() + 2);
    a = a.narrow(axis, begin, end - begin);
    b = b.narrow(axis, begin, end - begin);
  }
}

void measure_surfaces(const torch::Tensor& guess, const torch::Tensor& truth,
                      const Spacing& spacing, const MetricOptions& options, MaskMetrics& found) {
  const auto of_guess = surface_of(guess), of_truth = surface_of(truth);
  auto there = sorted_values(distance_to(of_truth, spacing), of_guess);
  auto back = sorted_values(distance_to(of_guess, spacing), of_truth);
  found.hd95 = std::max(distance_percentile(there, 95), distance_percentile(back, 95));
  found.hd = std::max(there.back(), back.back());
  double sum = 0;
  for (const auto* side : {&there, &back})
    for (const float value : *side) sum += static_cast<double>(value);
  const auto count = static_cast<double>(there.size() + back.size());
  found.assd = sum / count;
  for (const double tolerance : options.tolerances) {
    double within = 0;
    for (const auto* side : {&there, &back}) {
      within += static_cast<double>(
          std::upper_bound(side->begin(), side->end(), static_cast<float>(tolerance) * 1.000001F) -
          side->begin());
    }
    found.nsd.push_back(within / count);
  }
}

/// Components of `of` that `by` covers by at least `overlap`.
int64_t covered(const torch::Tensor& of, const torch::Tensor& by, double overlap, int64_t& count) {
  const auto labels = components_of(of, true, &count).flatten().to(torch::kLong);
  const auto sizes = torch::bincount(labels, {}, count + 1),
             hits = torch::bincount(labels.masked_select(by.flatten()), {}, count + 1);
  int64_t found = 0;
  for (int64_t k = 1; k <= count; ++k) {
    const double hit = hits[k].item<double>();
    found += hit > 0 && hit >= overlap * sizes[k].item<double>() ? 1 : 0;
  }
  return found;
}

}  // namespace

MaskMetrics mask_metrics(const torch::Tensor& given_guess, const torch::Tensor& given_truth,
                         const Spacing& spacing, const MetricOptions& options) {
  SERPENTINE_CHECK(given_guess.sizes() == given_truth.sizes(), "mask_metrics",
                   "both masks must have one size, got ", given_guess.sizes(), " and ",
                   given_truth.sizes());
  auto guess = given_guess.contiguous(), truth = given_truth.contiguous();
  MaskMetrics found;
  const double millilitre = spacing[0] * spacing[1] * spacing[2] / 1000;
  const double both = (guess & truth).sum().item<double>(), predicted = guess.sum().item<double>(),
               real = truth.sum().item<double>();
  found.dice = share(2 * both, predicted + real);
  found.iou = share(both, predicted + real - both);
  found.precision = share(both, predicted);
  found.recall = share(both, real);
  found.volume_guess = predicted * millilitre;
  found.volume_truth = real * millilitre;
  found.volume_error = real > 0 ? (predicted - real) / real : kNone;
  found.hd95 = found.hd = found.assd = kNone;
  if (predicted > 0 || real > 0) {
    crop(guess, truth);
    guess = guess.contiguous();
    truth = truth.contiguous();
  }
  if (predicted > 0 && real > 0) {
    measure_surfaces(guess, truth, spacing, options, found);
  } else {
    found.nsd.assign(options.tolerances.size(), predicted == 0 && real == 0 ? kNone : 0);
  }
  int64_t predicted_lesions = 0;
  found.lesions_found = covered(truth, guess, options.lesion_overlap, found.lesions);
  const int64_t right = covered(guess, truth, options.lesion_overlap, predicted_lesions);
  found.false_lesions = predicted_lesions - right;
  const double missed = static_cast<double>(found.lesions - found.lesions_found);
  const double hit = static_cast<double>(found.lesions_found);
  found.lesion_f1 = share(2 * hit, 2 * hit + missed + static_cast<double>(found.false_lesions));
  return found;
}

std::vector<std::string> metric_names(const MetricOptions& options) {
  std::vector<std::string> names = {"dice",    "iou",   "precision", "recall",
                                    "hd95_mm", "hd_mm", "assd_mm"};
  for (const double tolerance : options.tolerances) {
    char text[32];
    std::snprintf(text, sizeof text, "nsd_%gmm", tolerance);
    names.emplace_back(text);
  }
  for (const char* name : {"volume_truth_ml", "volume_predicted_ml", "volume_error", "lesions",
                           "lesions_found", "false_lesions", "lesion_f1"})
    names.emplace_back(name);
  return names;
}

std::vector<double> metric_values(const MaskMetrics& m) {
  std::vector<double> values = {m.dice, m.iou, m.precision, m.recall, m.hd95, m.hd, m.assd};
  values.insert(values.end(), m.nsd.begin(), m.nsd.end());
  for (const double value :
       {m.volume_truth, m.volume_guess, m.volume_error, static_cast<double>(m.lesions),
        static_cast<double>(m.lesions_found), static_cast<double>(m.false_lesions), m.lesion_f1})
    values.push_back(value);
  return values;
}

}  // namespace serpentine
