// The optimisers' states under the parameters' names.
#include <map>
#include <utility>

#include <torch/torch.h>

#include "core/check.h"
#include "core/train/optim.h"

namespace serpentine {

namespace {

namespace optim = torch::optim;

template <class State>
void save_adam(const State& state, const std::string& name, StateDict& out) {
  out.emplace_back(name + ".step", torch::tensor(state.step(), torch::kInt64));
  out.emplace_back(name + ".exp_avg", state.exp_avg());
  out.emplace_back(name + ".exp_avg_sq", state.exp_avg_sq());
  if (state.max_exp_avg_sq().defined())
    out.emplace_back(name + ".max_exp_avg_sq", state.max_exp_avg_sq());
}

using Found = std::map<std::string, torch::Tensor>;  // the entries of one parameter

torch::Tensor take(Found& found, const std::string& entry, const std::string& name,
                   const torch::Tensor& like) {
  const auto at = found.find(entry);
  SERPENTINE_CHECK(at != found.end(), "checkpoint", "the optimiser's ", entry, " of ", name,
                   " is missing");
  SERPENTINE_CHECK(at->second.sizes() == like.sizes(), "checkpoint", "the optimiser's ", entry,
                   " of ", name, " must have the parameter's shape ", like.sizes(), ", got ",
                   at->second.sizes());
  torch::Tensor tensor = at->second.to(like.device(), /*non_blocking=*/false, /*copy=*/true);
  found.erase(at);
  return tensor;
}

template <class State>
std::unique_ptr<State> load_adam(Found& found, const std::string& name,
                                 const torch::Tensor& parameter) {
  auto state = std::make_unique<State>();
  state->step(take(found, "step", name, torch::empty({})).template item<int64_t>());
  state->exp_avg(take(found, "exp_avg", name, parameter));
  state->exp_avg_sq(take(found, "exp_avg_sq", name, parameter));
  if (found.count("max_exp_avg_sq"))
    state->max_exp_avg_sq(take(found, "max_exp_avg_sq", name, parameter));
  return state;
}

}  // namespace

StateDict optimizer_state(const optim::Optimizer& optimizer, const torch::nn::Module& module) {
  StateDict out;
  for (const auto& item : module.named_parameters()) {
    const auto found = optimizer.state().find(item.value().unsafeGetTensorImpl());
    if (found == optimizer.state().end()) continue;
    const optim::OptimizerParamState* state = found->second.get();
    if (const auto* adamw = dynamic_cast<const optim::AdamWParamState*>(state)) {
      save_adam(*adamw, item.key(), out);
    } else if (const auto* adam = dynamic_cast<const optim::AdamParamState*>(state)) {
      save_adam(*adam, item.key(), out);
    } else if (const auto* sgd = dynamic_cast<const optim::SGDParamState*>(state)) {
      if (sgd->momentum_buffer().defined())
        out.emplace_back(item.key() + ".momentum_buffer", sgd->momentum_buffer());
    } else {
      SERPENTINE_CHECK(false, "checkpoint", "cannot save the state of this type of optimiser");
    }
  }
  return out;
}

void set_optimizer_state(optim::Optimizer& optimizer, const torch::nn::Module& module,
                         const StateDict& state) {
  std::map<std::string, Found> by_parameter;
  for (const auto& [key, tensor] : state) {
    const size_t dot = key.rfind('.');
    SERPENTINE_CHECK(dot != std::string::npos, "checkpoint", "cannot place the optimiser's entry '",
                     key, "'");
    by_parameter[key.substr(0, dot)][key.substr(dot + 1)] = tensor;
  }
  optimizer.state().clear();
  for (const auto& item : module.named_parameters()) {
    const auto found = by_parameter.find(item.key());
    if (found == by_parameter.end()) continue;
    auto& slot = optimizer.state()[item.value().unsafeGetTensorImpl()];
    if (dynamic_cast<optim::AdamW*>(&optimizer)) {
      slot = load_adam<optim::AdamWParamState>(found->second, item.key(), item.value());
    } else if (dynamic_cast<optim::Adam*>(&optimizer)) {
      slot = load_adam<optim::AdamParamState>(found->second, item.key(), item.value());
    } else {
      auto sgd = std::make_unique<optim::SGDParamState>();
      sgd->momentum_buffer(take(found->second, "momentum_buffer", item.key(), item.value()));
      slot = std::move(sgd);
    }
    SERPENTINE_CHECK(found->second.empty(), "checkpoint", "the optimiser has no use for ",
                     found->second.begin()->first, " of ", item.key(),
                     ": it was saved by another type of optimiser");
    by_parameter.erase(found);
  }
  SERPENTINE_CHECK(by_parameter.empty(), "checkpoint", "the optimiser's state of '",
                   by_parameter.begin()->first, "' fits no parameter of the model");
}

}  // namespace serpentine
