#include "core/nn/parameter_groups.h"

#include <set>

#include <torch/torch.h>

namespace serpentine {
namespace {

bool spared(const std::string& name, const torch::Tensor& parameter) {
  const auto last = name.substr(name.rfind('.') + 1);  // npos + 1 is 0: the whole name
  return parameter.dim() <= 1 || last == "A_log" || last == "A_b_log" || last == "D" ||
         last == "bias" || last == "log_A_real" || last == "A_real" || last == "A_imag" ||
         last == "inv_dt";
}

}  // namespace

ParameterGroups parameter_groups(const torch::nn::Module& module) {
  ParameterGroups groups;
  std::set<const void*> seen;
  for (const auto& item : module.named_parameters()) {
    if (!item.value().requires_grad() || !seen.insert(item.value().unsafeGetTensorImpl()).second)
      continue;
    (spared(item.key(), item.value()) ? groups.not_decayed : groups.decayed).push_back(item.key());
  }
  return groups;
}

}  // namespace serpentine
