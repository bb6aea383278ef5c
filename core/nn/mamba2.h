// The Mamba-2 block: one projection, a short convolution, state space duality, a gated norm.
//
// Dao & Gu, "Transformers are SSMs", arXiv 2405.21060, section 7. Keys and initialisation as
// state-spaces/mamba's Mamba2 and, with `init_states`, Mamba2Simple.
#pragma once

#include <limits>

#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include "core/config.h"
#include "core/nn/mixer.h"
#include "core/nn/norm.h"

namespace serpentine {

struct Mamba2Options {
  int64_t d_model = 256;  // channels of the residual stream
  int64_t d_state = 128;  // N
  int64_t d_conv = 4;     // width of the causal convolution, 1..7
  double expand = 2;      // inner channels, int(expand * d_model)
  int64_t headdim = 64;   // E, channels a head
  int64_t d_ssm = 0;      // channels that are scanned; the others are gated only. 0: all
  int64_t ngroups = 1;    // groups of heads that share B and C
  bool D_has_hdim = false;
  bool rmsnorm = true;            // false: y silu(z) alone
  bool norm_before_gate = false;  // norm(y) silu(z) instead of norm(y silu(z))
  bool bias = false;              // of in_proj and out_proj
  bool conv_bias = true;
  bool learnable_init_states = false;
  double A_min = 1, A_max = 16;  // range of the initial -A
  double dt_min = 1e-3, dt_max = 1e-1, dt_init_floor = 1e-4;
  double dt_least = 0, dt_most = std::numeric_limits<double>::infinity();  // dt_limit
  int64_t chunk_size = 0;  // most tokens a chunk; 0: chosen. Changes roundings only
  int64_t inner() const { return static_cast<int64_t>(expand * static_cast<double>(d_model)); }
  int64_t scanned() const { return d_ssm > 0 ? d_ssm : inner(); }
  int64_t heads() const { return scanned() / headdim; }
  int64_t conv_channels() const { return scanned() + 2 * ngroups * d_state; }
  void fields(Fields& f);  // all but d_model, which the model around it knows
};

/// RMS norm with a gate. Key `weight`.
class GatedNormImpl : public torch::nn::Module {
 public:
  GatedNormImpl(int64_t channels, int64_t group, bool before_gate, double eps = 1e-5);
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& gate);

  torch::Tensor weight;  // [D]

 private:
  int64_t group_;
  bool before_gate_;
  double eps_;
};
TORCH_MODULE(GatedNorm);

/// Autocast safe: A, D, the bias of dt and the states stay fp32. The state's ssm is [B, H, E, N].
class Mamba2Impl : public Mixer {
 public:
  explicit Mamba2Impl(const Mamba2Options& options);
  void reset() override;  // the published initialisation

  /// One branch; every token is visited once. Pads are positions that decay the state.
  torch::Tensor forward(const torch::Tensor& x, const ScanOrder& order) override;
  torch::Tensor forward(const torch::Tensor& x);  // in the given order of tokens
  torch::Tensor prefill(const torch::Tensor& x, MixerState& state) override;
  torch::Tensor step(const torch::Tensor& x, MixerState& state) override;
  MixerState empty_state(int64_t batch) const override;

  Mamba2Options options;
  torch::nn::Linear in_proj{nullptr}, out_proj{nullptr};
  torch::nn::Conv1d conv1d{nullptr};  // holds the parameters under the reference's names
  GatedNorm norm{nullptr};
  torch::Tensor dt_bias, A_log, D;  // float32 [H], [H], [H] or [d_ssm]
  torch::Tensor init_states;        // [H, E, N], if they are learnt

 private:
  torch::Tensor mix(const torch::Tensor& x, const ScanOrder& order, MixerState* state);
};
TORCH_MODULE(Mamba2);

}  // namespace serpentine
