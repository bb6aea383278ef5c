// A language model of Mamba, Mamba-2 or Mamba-3 blocks, with the keys of the published checkpoints
// (MambaLMHeadModel).
//
// Gu & Dao, arXiv 2312.00752, section 3.4; state-spaces/mamba models/mixer_seq_simple.
#pragma once

#include <string>
#include <vector>

#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/embedding.h>

#include "core/nn/block.h"
#include "core/nn/mamba.h"
#include "core/nn/mamba2.h"
#include "core/nn/mamba3.h"

namespace serpentine {

struct LanguageModelOptions {
  int64_t d_model = 768;
  int64_t n_layer = 24;
  int64_t d_intermediate = 0;  // inner channels of the MLP in each block; 0: none
  int64_t vocab_size = 50277;
  int64_t pad_vocab_size_multiple = 8;  // the embedding's rows are rounded up to a multiple of this
  std::string mixer = "mamba";          // mamba, mamba2 or mamba3: which of these is used;
  MambaOptions mamba;                   // their d_model is set from the above
  Mamba2Options mamba2;
  Mamba3Options mamba3;
  bool rms_norm = true;  // false: layer norm
  double norm_epsilon = 1e-5;
  bool residual_in_fp32 = true;
  bool tie_embeddings = true;  // the output projection is the embedding
  int64_t padded_vocab() const;
  void fields(Fields& f);
};

/// What generation carries: one state a layer.
struct GenerationState {
  std::vector<MixerState> layers;
};

/// Key prefix `backbone.`: embedding, blocks, final norm.
class LanguageBackboneImpl : public torch::nn::Module {
 public:
  explicit LanguageBackboneImpl(const LanguageModelOptions& options);

  /// ids: int64 [B, T] -> [B, T, d_model]. With `state`, continues from it.
  torch::Tensor forward(const torch::Tensor& ids, GenerationState* state = nullptr);

  torch::nn::Embedding embedding{nullptr};
  torch::nn::ModuleList layers;
  Norm norm_f{nullptr};
  Trace* trace = nullptr;

 private:
  bool residual_in_fp32_;
};
TORCH_MODULE(LanguageBackbone);

class LanguageModelImpl : public torch::nn::Module {
 public:
  explicit LanguageModelImpl(const LanguageModelOptions& options);
  void reset();  // the published initialisation

  torch::Tensor forward(const torch::Tensor& ids);  // int64 [B, T] -> [B, T, padded vocab]
  torch::Tensor prefill(const torch::Tensor& ids,
                        GenerationState& state);  // continues from `state`, if any
  torch::Tensor step(const torch::Tensor& ids,
                     GenerationState& state);  // int64 [B] -> [B, padded vocab]

  LanguageModelOptions options;
  LanguageBackbone backbone{nullptr};

  /// Holds `lm_head.weight` [padded vocab, d_model]. When tied it is the embedding's own tensor:
  /// parameters() then lists it twice; parameter_groups.h lists it once.
  std::shared_ptr<torch::nn::Module> lm_head;

 private:
  torch::Tensor head_;
};
TORCH_MODULE(LanguageModel);

}  // namespace serpentine
