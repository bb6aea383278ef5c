// The residual block around a mixer: add, norm, mix; the residual stream travels beside the hidden
// one.
//
// Gu & Dao, arXiv 2312.00752; order of steps and dtype rules as state-spaces/mamba's Block.
#pragma once

#include <functional>
#include <memory>

#include "core/nn/gated_mlp.h"
#include "core/nn/mixer.h"
#include "core/nn/norm.h"

namespace serpentine {

struct BlockOptions {
  int64_t d_model = 256;
  NormKind norm = NormKind::kRms;
  double eps = 1e-5;
  bool residual_in_fp32 = true;
  int64_t d_intermediate = 0;  // inner channels of a GatedMlp behind the mixer; 0: none
  double drop_path = 0;        // probability that a sample skips the branch before this block
};

/// The last branch's output and the sum of all before it; their sum enters the next block.
struct Streams {
  torch::Tensor hidden;    // [B, T, d_model]
  torch::Tensor residual;  // [B, T, d_model], undefined before the first block
};

/// Keys `norm.*`, `mixer.*`, with an MLP also `norm2.*` and `mlp.*`.
class BlockImpl : public torch::nn::Module {
 public:
  BlockImpl(const BlockOptions& options, std::shared_ptr<Mixer> mixer);

  Streams forward(const Streams& in, const ScanOrder& order);
  Streams prefill(const Streams& in, MixerState& state);
  Streams step(const Streams& in, MixerState& state);

  BlockOptions options;
  Norm norm{nullptr}, norm2{nullptr};
  std::shared_ptr<Mixer> mixer;
  GatedMlp mlp{nullptr};

 private:
  Streams run(const Streams& in, const std::function<torch::Tensor(const torch::Tensor&)>& mix);
};
TORCH_MODULE(Block);

}  // namespace serpentine
