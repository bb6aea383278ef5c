// Hydra: a bidirectional mixer, state space duality from both ends with a diagonal of its own.
//
// Hwang et al., "Hydra: Bidirectional State Space Models Through Generalized Matrix Mixers",
// arXiv 2407.09941. Keys and initialisation as goombalab/hydra's Hydra and, with `shared`, its
// MatrixMixer of type quasiseparable.
#pragma once

#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include "core/nn/mamba2.h"

namespace serpentine {

struct HydraOptions {
  int64_t d_model = 256;
  int64_t d_state = 64;
  int64_t d_conv = 7;  // taps of the centred convolution, odd
  double expand = 2;
  int64_t headdim = 64;
  int64_t ngroups = 1;
  bool shared = false;  // both directions have the same B and C; parameters under `matrix_mixer.`
  bool bias = false, conv_bias = true;
  bool learnable_init_states = false;
  double dt_min = 1e-3, dt_max = 1e-1, dt_init_floor = 1e-4;
  double dt_least = 0, dt_most = std::numeric_limits<double>::infinity();  // dt_limit
  int64_t chunk_size = 0;
  int64_t inner() const { return static_cast<int64_t>(expand * static_cast<double>(d_model)); }
  int64_t heads() const { return inner() / headdim; }
  void fields(Fields& f);  // all but d_model, which the model around it knows
};

/// y = strictly lower (from the start) + strictly upper (from the end) + diag(fc_D x + D). It looks
/// both ways, so it has no decoding: prefill, step and empty_state throw.
class HydraImpl : public Mixer {
 public:
  explicit HydraImpl(const HydraOptions& options);
  void reset() override;

  /// One branch without pads; every token is visited once. Sequences do not see each other.
  torch::Tensor forward(const torch::Tensor& x, const ScanOrder& order) override;
  torch::Tensor forward(const torch::Tensor& x);  // in the given order of tokens
  torch::Tensor prefill(const torch::Tensor& x, MixerState& state) override;
  torch::Tensor step(const torch::Tensor& x, MixerState& state) override;
  MixerState empty_state(int64_t batch) const override;

  HydraOptions options;
  torch::nn::Linear in_proj{nullptr}, fc_D{nullptr}, out_proj{nullptr};
  torch::nn::Conv1d conv1d{nullptr};
  GatedNorm norm{nullptr};
  torch::Tensor dt_bias, A_log, D;  // [H]
  torch::Tensor init_states;        // [H, E, N], if they are learnt

 private:
  torch::Tensor convolved(const torch::Tensor& x, const ScanOrder& order,
                          const ScanOrder& back) const;
};
TORCH_MODULE(Hydra);

}  // namespace serpentine
