// The Mamba-3 block, one input one output: a trapezoidal scan with rotating states, no convolution.
//
// Mamba-3, state-spaces/mamba modules/mamba3 (SISO). Per head, with gamma = sigmoid(trap) dt and
// beta = (1 - sigmoid(trap)) dt exp(dt A):
//   S = exp(dt A) S + beta v' k'^T + gamma v k^T;  y = S q + D v,
// where v', k' are the last token's, and q and k are C and B, normalised, shifted by a bias and
// turned by the running sum of pi tanh(angle) dt.
#pragma once

#include <string>

#include <torch/nn/modules/linear.h>

#include "core/config.h"
#include "core/nn/mamba2.h"
#include "core/nn/mixer.h"

namespace serpentine {

struct Mamba3Options {
  int64_t d_model = 256;
  int64_t d_state = 128;       // N
  double expand = 2;           // inner channels, int(expand * d_model)
  int64_t headdim = 64;        // E
  int64_t ngroups = 1;         // groups of heads that share B and C before their biases
  double rope_fraction = 0.5;  // part of the state that turns
  bool is_outproj_norm = false;
  /// How A grows with its projection. Mamba_ssm 2.3.2 has softplus, its head heavy_tail (1 + x
  /// above zero, 1 / (1 - x) below); a checkpoint does not tell which it was trained with.
  std::string activation = "heavy_tail";
  double A_floor = 1e-4;  // least decay rate
  double dt_min = 1e-3, dt_max = 1e-1, dt_init_floor = 1e-4;
  int64_t chunk_size = 0;
  int64_t inner() const { return static_cast<int64_t>(expand * static_cast<double>(d_model)); }
  int64_t heads() const { return inner() / headdim; }
  int64_t angles() const {
    return static_cast<int64_t>(rope_fraction * static_cast<double>(d_state)) / 2;
  }
  void fields(Fields& f);  // all but d_model, which the model around it knows
};

/// The state's ssm is [B, H, E, N]; its last holds k [H, N], v [H, E] and the angles [H, angles] of
/// the last token, flat: [B, X].
class Mamba3Impl : public Mixer {
 public:
  explicit Mamba3Impl(const Mamba3Options& options);
  void reset() override;

  torch::Tensor forward(const torch::Tensor& x, const ScanOrder& order) override;
  torch::Tensor forward(const torch::Tensor& x);  // in the given order of tokens
  torch::Tensor prefill(const torch::Tensor& x, MixerState& state) override;
  torch::Tensor step(const torch::Tensor& x, MixerState& state) override;
  MixerState empty_state(int64_t batch) const override;

  Mamba3Options options;
  torch::nn::Linear in_proj{nullptr}, out_proj{nullptr};
  Norm B_norm{nullptr}, C_norm{nullptr};
  GatedNorm norm{nullptr};
  torch::Tensor dt_bias, D;      // [H]
  torch::Tensor B_bias, C_bias;  // [H, 1, N]

 private:
  torch::Tensor mix(const torch::Tensor& x, const ScanOrder& order, MixerState* state);
  torch::Tensor decay_rate(const torch::Tensor& projected) const;
};
TORCH_MODULE(Mamba3);

}  // namespace serpentine
