#include "core/data/dataset.h"

#include <torch/torch.h>

namespace serpentine {

namespace {

template <class Change>
Batch changed(const Batch& batch, const Change& change) {
  const auto apply = [&](const torch::Tensor& t) { return t.defined() ? change(t) : t; };
  Batch out{apply(batch.input), apply(batch.target), apply(batch.coords), apply(batch.offsets), {}};
  for (const auto& [name, tensor] : batch.named) out.named[name] = apply(tensor);
  return out;
}

}  // namespace

Batch Batch::to(torch::Device device, bool non_blocking) const {
  return changed(*this, [&](const torch::Tensor& t) { return t.to(device, non_blocking); });
}

Batch Batch::pinned() const {
  // a tensor expanded over the batch overlaps itself, which pin_memory cannot copy
  return changed(*this, [](const torch::Tensor& t) { return t.contiguous().pin_memory(); });
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
