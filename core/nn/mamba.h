// The Mamba block: gated projection, short convolution, selective scan.
//
// Gu & Dao, arXiv 2312.00752, Figure 3. Keys and init as state-spaces/mamba's Mamba module.
#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include "core/config.h"
#include "core/scan_order.h"

namespace serpentine {

struct MambaOptions {
  int64_t d_model = 256;     // channels of the residual stream
  int64_t d_state = 16;      // N, states a channel
  int64_t d_conv = 4;        // width of the causal convolution
  double expand = 2;         // inner channels = int(expand * d_model)
  int64_t dt_rank = 0;       // rank of the projection to delta; 0: ceil(d_model / 16)
  bool bias = false;         // of in_proj and out_proj
  bool conv_bias = true;
  double dt_min = 1e-3, dt_max = 1e-1, dt_scale = 1, dt_init_floor = 1e-4;
  void fields(Fields& f);
};

/// What decoding carries from token to token.
struct MambaState {
  torch::Tensor conv;  // [B, D, W]: the last W inputs of the convolution, zeros before the start
  torch::Tensor ssm;   // float32 [B, D, N]
};

class MambaImpl : public torch::nn::Cloneable<MambaImpl> {
 public:
  explicit MambaImpl(MambaOptions options);
  void reset() override;  // the published initialisation

  /// x: [B, T, d_model] -> [B, T, d_model], tokens visited in `order` (one branch; each token once).
  torch::Tensor forward(const torch::Tensor& x, const ScanOrder& order);
  torch::Tensor forward(const torch::Tensor& x);  // in the given order of tokens

  /// Continues from `state` (empty tensors: from nothing) and leaves the new state there. Differentiable.
  torch::Tensor prefill(const torch::Tensor& x, MambaState& state);
  /// One token, x: [B, 1, d_model]; `state` as prefill left it.
  torch::Tensor step(const torch::Tensor& x, MambaState& state);
  MambaState empty_state(int64_t batch) const;

  MambaOptions options;
  torch::nn::Linear in_proj{nullptr}, x_proj{nullptr}, dt_proj{nullptr}, out_proj{nullptr};
  torch::nn::Conv1d conv1d{nullptr};  // holds the parameters under the reference's names
  torch::Tensor A_log, D;             // float32 [D, N], [D]
};
TORCH_MODULE(Mamba);

}  // namespace serpentine
