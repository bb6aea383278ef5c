// What a residual block mixes tokens with: Mamba and its relatives.
#pragma once

#include <map>
#include <string>

#include <torch/nn/module.h>
#include <torch/types.h>

#include "core/scan_order.h"

namespace serpentine {

/// Intermediate tensors under the names, and in the layouts, of recordings of the reference.
using Trace = std::map<std::string, torch::Tensor>;

/// What decoding carries from token to token. Undefined tensors: from nothing.
struct MixerState {
  torch::Tensor conv;  // [B, D, W]: the last W inputs of the convolution, zeros before the start
  torch::Tensor ssm;   // [B, D, N] or [B, H, E, N], float32 (float64 in a float64 module)
  torch::Tensor last;  // what else a mixer keeps of the last token (Mamba-3)
};

class Mixer : public torch::nn::Module {
 public:
  /// x: [B, T, d_model] -> [B, T, d_model]; the recurrence visits tokens in `order`.
  virtual torch::Tensor forward(const torch::Tensor& x, const ScanOrder& order) = 0;

  /// Tokens in their given order, continuing from `state`, which is left as the last token made it.
  /// Differentiable, through the state as well: a sequence in any chunks gives what it gives as a
  /// whole.
  virtual torch::Tensor prefill(const torch::Tensor& x, MixerState& state) = 0;

  /// One token, x: [B, 1, d_model].
  virtual torch::Tensor step(const torch::Tensor& x, MixerState& state) = 0;

  virtual MixerState empty_state(int64_t batch) const = 0;

  virtual void reset() {}  // draws the parameters anew, as published

  Trace* trace = nullptr;  // while set, forward leaves its intermediate tensors there
};

}  // namespace serpentine
