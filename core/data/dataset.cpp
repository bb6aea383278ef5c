#include "core/data/dataset.h"

#include <torch/torch.h>

namespace serpentine {

Batch Batch::to(torch::Device device) const {
  const auto move = [&](const torch::Tensor& t) { return t.defined() ? t.to(device) : t; };
  Batch out{move(input), move(target), move(coords), move(offsets), {}};
  for (const auto& [name, tensor] : named) out.named[name] = move(tensor);
  return out;
}

torch::Tensor Batch::get(const std::string& name) const {
  const auto entry = named.find(name);
  return entry == named.end() ? torch::Tensor() : entry->second;
}

Batch Dataset::get_batch(at::ArrayRef<int64_t> indices) const {
  std::vector<Batch> examples;
  for (const int64_t index : indices) examples.push_back(get(index));
  const auto stack = [&](auto&& pick) {
    std::vector<torch::Tensor> parts;
    for (const auto& example : examples) {
      const torch::Tensor part = pick(example);
      if (part.defined()) parts.push_back(part);
    }
    return parts.empty() ? torch::Tensor() : torch::stack(parts);
  };
  Batch out;
  if (examples.empty()) return out;
  out.input = stack([](const Batch& b) { return b.input; });
  out.target = stack([](const Batch& b) { return b.target; });
  out.coords = stack([](const Batch& b) { return b.coords; });
  for (const auto& [name, tensor] : examples.front().named) {
    out.named[name] = stack([&, key = name](const Batch& b) { return b.get(key); });
  }
  return out;
}

}  // namespace serpentine
