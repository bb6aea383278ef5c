// Survival: time bins, losses of hazards and of risks.
//
// A model gives C logits a bag: of the hazards of C time bins, or (C = 1) of one risk. Rows are
// bags; `event` is 1 where the event was seen, 0 where follow-up ended before (censored).
#pragma once

#include <vector>

#include <torch/types.h>

namespace serpentine {

/// The edges of `bins` time bins: quantiles of the times with an event; the first edge lies `eps`
/// below the least of all times, the last above the largest. Throws with fewer events than bins.
std::vector<double> time_bin_edges(const std::vector<double>& times,
                                   const std::vector<bool>& events, int64_t bins,
                                   double eps = 1e-6);

/// The bin [edges[b], edges[b + 1]) of a time; times outside go to the nearest bin.
int64_t time_bin(const std::vector<double>& edges, double time);

/// sigmoid(logits), [B, C], and the probability of living through bins 0..b.
torch::Tensor hazards(const torch::Tensor& logits);
torch::Tensor survival(const torch::Tensor& logits);

/// Higher is worse: -sum of the survival, or the risk itself. [B, C] -> [B]
torch::Tensor risk_of(const torch::Tensor& logits);

/// Zadeh & Schmid, IEEE TPAMI 2021: the negative log likelihood of the bin, mean over the bags.
/// alpha: share of an extra weight on bags with an event. bin: int64 [B], event: [B].
torch::Tensor discrete_survival_loss(const torch::Tensor& logits, const torch::Tensor& bin,
                                     const torch::Tensor& event, double alpha);
/// The same with a cross entropy of the survival at the bag's bin (Chen et al., MCAT).
torch::Tensor survival_cross_entropy(const torch::Tensor& logits, const torch::Tensor& bin,
                                     const torch::Tensor& event, double alpha);

/// Cox's partial likelihood over the bags of a batch (Breslow's ties), a mean over its events; 0
/// without any. risk, time, event: [B].
torch::Tensor cox_loss(const torch::Tensor& risk, const torch::Tensor& time,
                       const torch::Tensor& event);

}  // namespace serpentine
