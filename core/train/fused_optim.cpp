#include "core/train/fused_optim.h"

#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include <torch/torch.h>

namespace serpentine {

namespace {

namespace optim = torch::optim;
using Tensors = std::vector<torch::Tensor>;

/// The state of a parameter, made when there is none yet.
template <class State>
State& state_of(optim::Optimizer& optimizer, const torch::Tensor& parameter) {
  auto& state = optimizer.state()[parameter.unsafeGetTensorImpl()];
  if (!state) state = std::make_unique<State>();
  return static_cast<State&>(*state);
}

/// `tensor`, or zeros, in the strides of the parameter: the fused kernels walk all tensors alike.
torch::Tensor like(const torch::Tensor& parameter, const torch::Tensor& tensor) {
  if (!tensor.defined()) return torch::zeros_like(parameter, torch::MemoryFormat::Preserve);
  if (tensor.strides() == parameter.strides()) return tensor;
  return torch::empty_like(parameter, torch::MemoryFormat::Preserve).copy_(tensor);
}

/// Parameters of one type with equally many steps behind them.
struct AdamLists {
  Tensors parameters, gradients, averages, squares, largest, steps;
};

template <class State, class Options, class Operator>
void adam_step(optim::Optimizer& optimizer, const Operator& fused) {
  const torch::NoGradGuard no_grad;
  for (auto& group : optimizer.param_groups()) {
    const auto& options = static_cast<const Options&>(group.options());
    std::map<std::pair<torch::ScalarType, int64_t>, AdamLists> lists;
    for (const auto& parameter : group.params()) {
      const torch::Tensor& gradient = parameter.grad();
      if (!gradient.defined()) continue;
      auto& state = state_of<State>(optimizer, parameter);
      state.step(state.step() + 1);
      state.exp_avg(like(parameter, state.exp_avg()));
      state.exp_avg_sq(like(parameter, state.exp_avg_sq()));
      AdamLists& list = lists[{parameter.scalar_type(), state.step()}];
      list.parameters.push_back(parameter);
      list.gradients.push_back(like(parameter, gradient));
      list.averages.push_back(state.exp_avg());
      list.squares.push_back(state.exp_avg_sq());
      if (!options.amsgrad()) continue;
      state.max_exp_avg_sq(like(parameter, state.max_exp_avg_sq()));
      list.largest.push_back(state.max_exp_avg_sq());
    }
    for (auto& [key, list] : lists) {
      const auto step = torch::full({}, static_cast<double>(key.second),
                                    list.parameters[0].options().dtype(torch::kFloat32));
      list.steps.assign(list.parameters.size(), step);
      fused(list.parameters, list.gradients, list.averages, list.squares, list.largest, list.steps,
            options.lr(), std::get<0>(options.betas()), std::get<1>(options.betas()),
            options.weight_decay(), options.eps(), options.amsgrad(), /*maximize=*/false,
            std::nullopt, std::nullopt);
    }
  }
}

}  // namespace

void fused_step(optim::Adam& optimizer) {
  adam_step<optim::AdamParamState, optim::AdamOptions>(
      optimizer, [](auto&&... all) { at::_fused_adam_(all...); });
}

void fused_step(optim::AdamW& optimizer) {
  adam_step<optim::AdamWParamState, optim::AdamWOptions>(
      optimizer, [](auto&&... all) { at::_fused_adamw_(all...); });
}

void fused_step(optim::SGD& optimizer) {
  const torch::NoGradGuard no_grad;
  for (auto& group : optimizer.param_groups()) {
    const auto& options = static_cast<const optim::SGDOptions&>(group.options());
    // a buffer begins as the first gradient, so new ones take a call of their own
    std::map<std::pair<torch::ScalarType, bool>, std::tuple<Tensors, Tensors, Tensors>> lists;
    for (const auto& parameter : group.params()) {
      const torch::Tensor& gradient = parameter.grad();
      if (!gradient.defined()) continue;
      bool first = true;
      torch::Tensor buffer;
      if (options.momentum() != 0) {
        auto& state = state_of<optim::SGDParamState>(optimizer, parameter);
        first = !state.momentum_buffer().defined();
        state.momentum_buffer(like(parameter, state.momentum_buffer()));
        buffer = state.momentum_buffer();
      }
      auto& [parameters, gradients, buffers] = lists[{parameter.scalar_type(), first}];
      parameters.push_back(parameter);
      gradients.push_back(like(parameter, gradient));
      if (buffer.defined()) buffers.push_back(buffer);
    }
    for (auto& [key, list] : lists) {
      auto& [parameters, gradients, buffers] = list;
      at::_fused_sgd_(parameters, gradients, buffers, options.weight_decay(), options.momentum(),
                      options.lr(), options.dampening(), options.nesterov(), /*maximize=*/false,
                      /*is_first_step=*/key.second);
    }
  }
}

}  // namespace serpentine
