#include "core/dist/gradient_reducer.h"

#include <utility>

#include <torch/torch.h>

namespace serpentine {

namespace {

struct Bucket {
  std::vector<torch::Tensor> gradients;
  int64_t bytes = 0;
};

}  // namespace

GradientReducer::GradientReducer(ProcessGroup& group, std::vector<torch::Tensor> parameters,
                                 int64_t bucket_bytes)
    : group_(group), parameters_(std::move(parameters)), bucket_bytes_(bucket_bytes) {}

void GradientReducer::reduce(const std::vector<bool>& used, double factor) {
  const torch::NoGradGuard no_grad;
  std::vector<Bucket> buckets;
  for (size_t i = parameters_.size(); i-- > 0;) {
    if (!used[i]) continue;
    torch::Tensor& gradient = parameters_[i].mutable_grad();
    if (!gradient.defined()) gradient = torch::zeros_like(parameters_[i]);
    const bool fits = !buckets.empty() && buckets.back().bytes < bucket_bytes_ &&
                      buckets.back().gradients.back().scalar_type() == gradient.scalar_type();
    if (!fits) buckets.emplace_back();
    buckets.back().gradients.push_back(gradient);
    buckets.back().bytes += static_cast<int64_t>(gradient.nbytes());
  }

  std::vector<torch::Tensor> flat;
  for (const auto& bucket : buckets) {
    std::vector<torch::Tensor> rows;
    for (const auto& gradient : bucket.gradients) rows.push_back(gradient.reshape({-1}));
    flat.push_back(torch::cat(rows));
    if (factor != 1) flat.back().mul_(factor);
  }
  group_.sum(flat);

  for (size_t b = 0; b < buckets.size(); ++b) {
    int64_t at = 0;
    for (const auto& gradient : buckets[b].gradients) {
      gradient.copy_(flat[b].slice(0, at, at + gradient.numel()).view_as(gradient));
      at += gradient.numel();
    }
  }
}

}  // namespace serpentine
