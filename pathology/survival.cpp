#include "pathology/survival.h"

#include <algorithm>
#include <cmath>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr double kLeast = 1e-7;  // of a probability before its logarithm

struct Gathered {
  torch::Tensor event, before, after, hazard;  // [B]: survival before and after the bag's bin
};

Gathered gather(const torch::Tensor& logits, const torch::Tensor& bin, const torch::Tensor& event) {
  const auto h = hazards(logits), s = survival(logits);
  const auto padded = torch::cat({torch::ones_like(s.narrow(1, 0, 1)), s}, 1);
  const auto index = bin.to(torch::kLong).view({-1, 1});
  return {event.to(s.scalar_type()).view({-1}), padded.gather(1, index).squeeze(1),
          padded.gather(1, index + 1).squeeze(1), h.gather(1, index).squeeze(1)};
}

torch::Tensor log_of(const torch::Tensor& x) { return x.clamp_min(kLeast).log(); }

}  // namespace

std::vector<double> time_bin_edges(const std::vector<double>& times,
                                   const std::vector<bool>& events, int64_t bins, double eps) {
  std::vector<double> seen;
  for (size_t i = 0; i < times.size(); ++i) {
    if (events[i]) seen.push_back(times[i]);
  }
  SERPENTINE_CHECK(static_cast<int64_t>(seen.size()) >= bins, "survival", bins,
                   " time bins need as many events, there are ", seen.size());
  std::sort(seen.begin(), seen.end());
  std::vector<double> edges;
  for (int64_t b = 0; b <= bins; ++b) {
    const double place =
        static_cast<double>(b) / static_cast<double>(bins) * static_cast<double>(seen.size() - 1);
    const auto low = static_cast<size_t>(place);
    const size_t high = std::min(low + 1, seen.size() - 1);
    edges.push_back(seen[low] + (place - static_cast<double>(low)) * (seen[high] - seen[low]));
  }
  edges.front() = *std::min_element(times.begin(), times.end()) - eps;
  edges.back() = *std::max_element(times.begin(), times.end()) + eps;
  for (size_t b = 1; b < edges.size(); ++b) {
    SERPENTINE_CHECK(edges[b] > edges[b - 1], "survival", "too many equal times for ", bins,
                     " time bins; ask for fewer");
  }
  return edges;
}

int64_t time_bin(const std::vector<double>& edges, double time) {
  const auto above = std::upper_bound(edges.begin(), edges.end(), time) - edges.begin();
  return std::clamp<int64_t>(above - 1, 0, static_cast<int64_t>(edges.size()) - 2);
}

torch::Tensor hazards(const torch::Tensor& logits) { return torch::sigmoid(logits); }

torch::Tensor survival(const torch::Tensor& logits) {
  return torch::cumprod(1 - hazards(logits), 1);
}

torch::Tensor risk_of(const torch::Tensor& logits) {
  return logits.size(1) == 1 ? logits.squeeze(1) : -survival(logits).sum(1);
}

torch::Tensor discrete_survival_loss(const torch::Tensor& logits, const torch::Tensor& bin,
                                     const torch::Tensor& event, double alpha) {
  const Gathered at = gather(logits, bin, event);
  const auto uncensored = -at.event * (log_of(at.before) + log_of(at.hazard));
  const auto censored = -(1 - at.event) * log_of(at.after);
  return ((1 - alpha) * (censored + uncensored) + alpha * uncensored).mean();
}

torch::Tensor survival_cross_entropy(const torch::Tensor& logits, const torch::Tensor& bin,
                                     const torch::Tensor& event, double alpha) {
  const Gathered at = gather(logits, bin, event);
  const auto likelihood = -at.event * ((at.before + kLeast).log() + log_of(at.hazard));
  const auto alive = at.after.clamp_min(kLeast);
  const auto entropy = -(1 - at.event) * alive.log() - at.event * (1 - alive).log();
  return ((1 - alpha) * entropy + alpha * likelihood).mean();
}

torch::Tensor cox_loss(const torch::Tensor& risk, const torch::Tensor& time,
                       const torch::Tensor& event) {
  // row i: the bags still under watch when i's time comes
  const auto watched = time.view({1, -1}) >= time.view({-1, 1});
  const auto among = risk.view({1, -1})
                         .expand({risk.size(0), -1})
                         .masked_fill(watched.logical_not(), -INFINITY)
                         .logsumexp(1);
  const auto seen = event.to(risk.scalar_type());
  return ((among - risk) * seen).sum() / seen.sum().clamp_min(1);
}

}  // namespace serpentine
