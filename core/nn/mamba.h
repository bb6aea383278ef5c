// The Mamba block: gated projection, short convolution, selective scan.
//
// Gu & Dao, arXiv 2312.00752, Figure 3. Keys and init as state-spaces/mamba's Mamba module.
#pragma once

#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include "core/config.h"
#include "core/nn/mixer.h"
#include "core/ops/mamba_mixer.h"

namespace serpentine {

struct MambaOptions {
  int64_t d_model = 256;  // channels of the residual stream
  int64_t d_state = 16;   // N, states a channel
  int64_t d_conv = 4;     // width of the causal convolution, 1..7
  double expand = 2;      // inner channels D = int(expand * d_model)
  int64_t dt_rank = 0;    // rank of the projection to delta; 0: ceil(d_model / 16)
  bool bias = false;      // of in_proj and out_proj
  bool conv_bias = true;
  double dt_min = 1e-3, dt_max = 1e-1, dt_scale = 1, dt_init_floor = 1e-4;
  std::string keep = "auto";  // what training keeps: auto, nothing, scan or all
  int64_t inner() const {
    return static_cast<int64_t>(expand * static_cast<double>(d_model));
  }  // D
  int64_t rank() const { return dt_rank > 0 ? dt_rank : (d_model + 15) / 16; }  // R
  MixerKeep kept(at::Device device) const;  // auto: nothing on a GPU, all on a CPU
  void fields(Fields& f);                   // all but d_model, which the model around it knows
};

/// Autocast safe: A, D, the bias of delta and the states stay fp32.
class MambaImpl : public Mixer {
 public:
  explicit MambaImpl(const MambaOptions& options);
  void reset() override;  // the published initialisation

  /// One branch; every token is visited once. Pads are positions that decay the state.
  torch::Tensor forward(const torch::Tensor& x, const ScanOrder& order) override;
  torch::Tensor forward(const torch::Tensor& x);  // in the given order of tokens
  torch::Tensor prefill(const torch::Tensor& x, MixerState& state) override;
  torch::Tensor step(const torch::Tensor& x, MixerState& state) override;
  MixerState empty_state(int64_t batch) const override;

  MambaOptions options;
  torch::nn::Linear in_proj{nullptr}, x_proj{nullptr}, dt_proj{nullptr}, out_proj{nullptr};
  torch::nn::Conv1d conv1d{nullptr};  // holds the parameters under the reference's names
  torch::Tensor A_log, D;             // float32 [D, N], [D]

 private:
  torch::Tensor mix(const torch::Tensor& x, const ScanOrder& order, MixerState* state);
};
TORCH_MODULE(Mamba);

}  // namespace serpentine
