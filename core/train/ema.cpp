#include "core/train/ema.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {

Ema::Ema(const torch::nn::Module& module, double decay) : decay_(decay) {
  SERPENTINE_CHECK(decay >= 0 && decay < 1, "ema", "the decay must lie in [0, 1), got ", decay);
  std::set<const void*> seen;
  const auto add = [&](const auto& items) {
    for (const auto& item : items) {
      if (!seen.insert(item.value().unsafeGetTensorImpl()).second)
        continue;  // shared by two modules
      names_.push_back(item.key());
      live_.push_back(item.value());
      averages_.push_back(item.value().detach().clone());
      if (!item.value().is_floating_point()) continue;
      float_live_.push_back(live_.back());
      float_averages_.push_back(averages_.back());
    }
  };
  add(module.named_parameters());
  add(module.named_buffers());
}

void Ema::update() {
  const torch::NoGradGuard no_grad;
  ++updates_;
  const auto t = static_cast<double>(updates_);
  const double decay = std::min(decay_, (1 + t) / (10 + t));
  // a lerp of each tensor by itself would be a launch each on a GPU
  if (!float_averages_.empty()) at::_foreach_lerp_(float_averages_, float_live_, 1 - decay);
  for (size_t i = 0; i < live_.size(); ++i) {
    if (!live_[i].is_floating_point()) averages_[i].copy_(live_[i]);
  }
}

void Ema::swap() {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < live_.size(); ++i) {
    const torch::Tensor old = live_[i].detach().clone();
    live_[i].copy_(averages_[i]);
    averages_[i].copy_(old);
  }
}

StateDict Ema::state() const {
  StateDict out;
  for (size_t i = 0; i < names_.size(); ++i) out.emplace_back(names_[i], averages_[i]);
  return out;
}

void Ema::set_state(const StateDict& state, int64_t updates) {
  const torch::NoGradGuard no_grad;
  std::map<std::string, torch::Tensor> by_name(state.begin(), state.end());
  for (size_t i = 0; i < names_.size(); ++i) {
    const auto found = by_name.find(names_[i]);
    SERPENTINE_CHECK(found != by_name.end(), "checkpoint", "the average of ", names_[i],
                     " is missing");
    SERPENTINE_CHECK(found->second.sizes() == averages_[i].sizes(), "checkpoint", "the average of ",
                     names_[i], " must be ", averages_[i].sizes(), ", got ", found->second.sizes());
    averages_[i].copy_(found->second);
  }
  updates_ = updates;
}

}  // namespace serpentine
