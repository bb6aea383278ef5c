#include "segmentation/label_prior.h"

#include <map>

#include <torch/torch.h>

#include "core/check.h"
#include "segmentation/resample.h"

namespace serpentine {

torch::Tensor label_prior(const std::vector<torch::Tensor>& labels,
                          const std::array<int64_t, 3>& size) {
  SERPENTINE_CHECK(!labels.empty(), "label_prior", "no labels were given");
  std::map<int64_t, torch::Tensor> votes;
  for (const auto& given : labels) {
    const auto brought = resample_labels(given.to(torch::kInt), size, -1);
    const auto values = std::get<0>(torch::_unique(brought));
    for (int64_t i = 0; i < values.numel(); ++i) {
      auto& sum = votes[values[i].item<int64_t>()];
      const auto here = brought.eq(values[i]).to(torch::kInt);
      sum = sum.defined() ? sum + here : here;
    }
  }
  std::vector<int64_t> values;
  std::vector<torch::Tensor> counts;
  for (const auto& [value, count] : votes) {
    values.push_back(value);
    counts.push_back(count);
  }
  const auto most = torch::stack(counts).argmax(0);
  return torch::tensor(values, torch::kInt).index_select(0, most.flatten()).view(most.sizes());
}

}  // namespace serpentine
