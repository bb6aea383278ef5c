// The exponential moving average of a model's weights.
#pragma once

#include <memory>
#include <vector>

#include <torch/nn/module.h>
#include <torch/types.h>

#include "core/io/state_dict.h"

namespace serpentine {

/// Averages floating parameters and buffers; others are copied. Polyak & Juditsky 1992, with a
/// decay.
class Ema {
 public:
  /// decay in [0, 1); early steps use min(decay, (1 + t) / (10 + t)) so that the start is
  /// forgotten.
  Ema(const torch::nn::Module& module, double decay);

  void update();
  /// Exchanges the model's weights and the averages; called again, undoes itself.
  void swap();

  StateDict state() const;  // the averages under the model's names
  void set_state(const StateDict& state, int64_t updates);
  int64_t updates() const { return updates_; }

 private:
  double decay_;
  int64_t updates_ = 0;
  std::vector<std::string> names_;
  std::vector<torch::Tensor> live_, averages_;
  std::vector<torch::Tensor> float_live_, float_averages_;  // those of floating point
};

/// Swaps the averages in while it lives; nothing without an Ema.
class EmaScope {
 public:
  explicit EmaScope(Ema* ema) : ema_(ema) {
    if (ema_) ema_->swap();
  }
  ~EmaScope() {
    if (ema_) ema_->swap();
  }
  EmaScope(const EmaScope&) = delete;
  EmaScope& operator=(const EmaScope&) = delete;

 private:
  Ema* ema_;
};

}  // namespace serpentine
