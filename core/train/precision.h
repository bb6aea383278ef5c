// Mixed precision: which operators run in 16 bits, and the loss scale that fp16 needs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <torch/types.h>
#include <nlohmann/json_fwd.hpp>

namespace serpentine {

/// Settles how float32 is meant, for the whole process, and gives the type of 16 bits for Autocast.
/// "fp32": IEEE on every device, as a CPU computes; "tf32": a GPU may round the operands of
/// products and convolutions to 10 bits, which PyTorch allows its convolutions by default; "bf16",
/// "fp16". Throws on other names.
std::optional<torch::ScalarType> apply_precision(const std::string& precision);

/// Runs matrix products and convolutions of its scope in a 16-bit type; nothing without a type.
class Autocast {
 public:
  Autocast(torch::DeviceType device, std::optional<torch::ScalarType> type);
  ~Autocast();
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  torch::DeviceType device_;
  bool active_, was_enabled_ = false;
  torch::ScalarType was_type_ = torch::kBFloat16;
};

/// Keeps fp16 gradients in range: multiplies the loss, and skips a step whose gradients overflow.
///
/// Micikevicius et al., arXiv 1710.03740, section 3.2, with the usual growth after 2000 good steps.
class GradScaler {
 public:
  explicit GradScaler(bool enabled) : enabled_(enabled) {}
  bool enabled() const { return enabled_; }
  torch::Tensor scale(const torch::Tensor& loss) const { return enabled_ ? loss * scale_ : loss; }
  /// Divides the gradients by the scale; false when one is not finite. Costs one synchronisation.
  bool unscale(const std::vector<torch::Tensor>& gradients) const;
  /// Lowers the scale after an overflow, raises it after enough good steps.
  void update(bool finite);

  nlohmann::json state() const;
  void set_state(const nlohmann::json& state);
  double value() const { return scale_; }

 private:
  bool enabled_;
  double scale_ = 65536;
  int64_t good_steps_ = 0;
};

}  // namespace serpentine
