#include "core/nn/recompute.h"

#include <algorithm>

#include <torch/torch.h>

namespace serpentine {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Carries the function from the forward pass to the backward one.
struct Kept : torch::CustomClassHolder {
  Recomputable function;
};

struct Recompute : torch::autograd::Function<Recompute> {
  static torch::Tensor forward(AutogradContext* context, at::TensorList inputs,
                               const c10::intrusive_ptr<Kept>& kept) {
    context->save_for_backward(inputs.vec());
    context->saved_data["kept"] = c10::IValue::make_capsule(kept);
    const torch::NoGradGuard no_grad;
    return kept->function(inputs.vec());
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto kept =
        c10::static_intrusive_pointer_cast<Kept>(context->saved_data["kept"].toCapsule());
    const variable_list saved = context->get_saved_variables();
    std::vector<torch::Tensor> inputs, wanted;
    for (const auto& tensor : saved) {
      inputs.push_back(tensor.defined() ? tensor.detach() : tensor);
      if (!tensor.defined() || !tensor.requires_grad()) continue;
      inputs.back().requires_grad_();
      wanted.push_back(inputs.back());
    }
    torch::Tensor output;
    {
      const torch::AutoGradMode with_grad(true);
      output = kept->function(inputs);
    }
    const auto found = torch::autograd::grad({output}, wanted, {grads[0]},
                                             /*retain_graph=*/std::nullopt,
                                             /*create_graph=*/false, /*allow_unused=*/true);
    variable_list all(saved.size() + 1);  // the last belongs to the function
    size_t next = 0;
    for (size_t i = 0; i < saved.size(); ++i) {
      if (saved[i].defined() && saved[i].requires_grad()) all[i] = found[next++];
    }
    return all;
  }
};

}  // namespace

torch::Tensor recomputed(Recomputable function, const std::vector<torch::Tensor>& inputs) {
  const bool learns = torch::GradMode::is_enabled() &&
                      std::any_of(inputs.begin(), inputs.end(), [](const torch::Tensor& one) {
                        return one.defined() && one.requires_grad();
                      });
  if (!learns) return function(inputs);
  auto kept = c10::make_intrusive<Kept>();
  kept->function = std::move(function);
  return Recompute::apply(at::TensorList(inputs), kept);
}

torch::Tensor recomputed_rows(const Recomputable& function, const std::vector<torch::Tensor>& xs,
                              int64_t rows, const std::vector<torch::Tensor>& shared) {
  const int64_t all = xs.front().size(0);
  const auto inputs = [&](int64_t first, int64_t end) {
    std::vector<torch::Tensor> part;
    for (const auto& x : xs) part.push_back(end - first == all ? x : x.slice(0, first, end));
    part.insert(part.end(), shared.begin(), shared.end());
    return part;
  };
  if (rows <= 0 || rows >= all) return function(inputs(0, all));
  std::vector<torch::Tensor> parts;
  for (int64_t first = 0; first < all; first += rows)
    parts.push_back(recomputed(function, inputs(first, std::min(first + rows, all))));
  return torch::cat(parts);
}

torch::Tensor recomputed_rows(const Recomputable& function, const torch::Tensor& x, int64_t rows,
                              const std::vector<torch::Tensor>& shared) {
  return recomputed_rows(function, std::vector<torch::Tensor>{x}, rows, shared);
}

}  // namespace serpentine
