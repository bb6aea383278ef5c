#include "core/train/precision.h"

#include <algorithm>

#include <ATen/autocast_mode.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/check.h"

namespace serpentine {

std::optional<torch::ScalarType> apply_precision(const std::string& precision) {
  const bool rounded = precision == "tf32";
  at::globalContext().setAllowTF32CuDNN(rounded);
  at::globalContext().setAllowTF32CuBLAS(rounded);
  if (rounded || precision == "fp32") return std::nullopt;
  if (precision == "bf16") return torch::kBFloat16;
  SERPENTINE_CHECK(precision == "fp16", "trainer",
                   "precision must be fp32, tf32, bf16 or fp16, got '", precision, "'");
  return torch::kHalf;
}

Autocast::Autocast(torch::DeviceType device, std::optional<torch::ScalarType> type)
    : device_(device), active_(type.has_value()) {
  if (!active_) return;
  was_enabled_ = at::autocast::is_autocast_enabled(device_);
  was_type_ = at::autocast::get_autocast_dtype(device_);
  at::autocast::set_autocast_enabled(device_, true);
  at::autocast::set_autocast_dtype(device_, *type);
  at::autocast::increment_nesting();
}

Autocast::~Autocast() {
  if (!active_) return;
  // the cache holds the 16-bit copies of the weights, which the next step changes
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_dtype(device_, was_type_);
  at::autocast::set_autocast_enabled(device_, was_enabled_);
}

bool GradScaler::unscale(const std::vector<torch::Tensor>& gradients) const {
  if (!enabled_ || gradients.empty()) return true;
  const torch::NoGradGuard no_grad;
  const auto options =
      torch::TensorOptions().dtype(torch::kFloat32).device(gradients.front().device());
  torch::Tensor overflow = torch::zeros({}, options);
  const torch::Tensor inverse = torch::full({}, 1.0 / scale_, options);
  at::_amp_foreach_non_finite_check_and_unscale_(gradients, overflow, inverse);
  return overflow.item<float>() == 0;
}

void GradScaler::update(bool finite) {
  if (!enabled_) return;
  constexpr int64_t kGrowthInterval = 2000;
  if (!finite) {
    scale_ = std::max(scale_ / 2, 1.0 / 65536);
    good_steps_ = 0;
  } else if (++good_steps_ == kGrowthInterval) {
    scale_ *= 2;
    good_steps_ = 0;
  }
}

nlohmann::json GradScaler::state() const {
  return {{"scale", scale_}, {"good_steps", good_steps_}};
}

void GradScaler::set_state(const nlohmann::json& state) {
  scale_ = state.at("scale").get<double>();
  good_steps_ = state.at("good_steps").get<int64_t>();
}

}  // namespace serpentine
