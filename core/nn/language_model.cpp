#include "core/nn/language_model.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr const char* kLanguageModelWho = "language model";

NormKind norm_kind(const LanguageModelOptions& options) {
  return options.rms_norm ? NormKind::kRms : NormKind::kLayer;
}

BlockOptions block_options(const LanguageModelOptions& options) {
  BlockOptions block;
  block.d_model = options.d_model;
  block.norm = norm_kind(options);
  block.eps = options.norm_epsilon;
  block.residual_in_fp32 = options.residual_in_fp32;
  block.d_intermediate = options.d_intermediate;
  return block;
}

template <class Mixing, class Options>
std::shared_ptr<Mixer> make(Options options, int64_t d_model) {
  options.d_model = d_model;
  return Mixing(options).ptr();
}

std::shared_ptr<Mixer> make_mixer(const LanguageModelOptions& options) {
  if (options.mixer == "mamba") return make<Mamba>(options.mamba, options.d_model);
  if (options.mixer == "mamba2") return make<Mamba2>(options.mamba2, options.d_model);
  SERPENTINE_CHECK(options.mixer == "mamba3", kLanguageModelWho,
                   "the mixer must be mamba, mamba2 or mamba3, got ", options.mixer);
  return make<Mamba3>(options.mamba3, options.d_model);
}

}  // namespace

int64_t LanguageModelOptions::padded_vocab() const {
  const int64_t multiple = std::max<int64_t>(1, pad_vocab_size_multiple);
  return (vocab_size + multiple - 1) / multiple * multiple;
}

void LanguageModelOptions::fields(Fields& f) {
  f("d_model", d_model, "channels of the residual stream", {.least = 1});
  f("n_layer", n_layer, "number of blocks", {.least = 1});
  f("d_intermediate", d_intermediate, "inner channels of an MLP in each block; 0 for none",
    {.least = 0});
  f("vocab_size", vocab_size, "number of tokens in the vocabulary", {.least = 1});
  f("pad_vocab_size_multiple", pad_vocab_size_multiple,
    "the vocabulary is padded to a multiple of this", {.least = 1});
  f("mixer", mixer, "the mixer of each block", {.choices = {"mamba", "mamba2", "mamba3"}});
  f.group("mamba", mamba, "the mixer named mamba");
  f.group("mamba2", mamba2, "the mixer named mamba2");
  f.group("mamba3", mamba3, "the mixer named mamba3");
  f("rms_norm", rms_norm, "RMS norm; false for layer norm");
  f("norm_epsilon", norm_epsilon, "added to the variance", {.least = 0});
  f("residual_in_fp32", residual_in_fp32, "keep the residual stream in float32");
  f("tie_embeddings", tie_embeddings, "use the embedding as the output projection");
}

LanguageBackboneImpl::LanguageBackboneImpl(const LanguageModelOptions& options)
    : residual_in_fp32_(options.residual_in_fp32) {
  embedding =
      register_module("embedding", torch::nn::Embedding(options.padded_vocab(), options.d_model));
  layers = register_module("layers", torch::nn::ModuleList());
  for (int64_t layer = 0; layer < options.n_layer; ++layer) {
    layers->push_back(Block(block_options(options), make_mixer(options)));
  }
  norm_f =
      register_module("norm_f", Norm(options.d_model, norm_kind(options), options.norm_epsilon));
}

torch::Tensor LanguageBackboneImpl::forward(const torch::Tensor& ids, GenerationState* state) {
  SERPENTINE_CHECK(ids.dim() == 2 && ids.scalar_type() == torch::kLong, kLanguageModelWho,
                   "ids must be int64 [B, T], got ", ids.scalar_type(), " ", ids.sizes());
  if (state != nullptr && state->layers.empty()) state->layers.resize(layers->size());
  const auto order = identity_order(ids.size(1), ids.device());
  Streams streams{embedding(ids), {}};
  if (trace != nullptr) (*trace)["after_embedding"] = streams.hidden;
  for (size_t i = 0; i < layers->size(); ++i) {
    auto& block = layers->at<BlockImpl>(i);
    streams = state == nullptr ? block.forward(streams, order)
                               : block.prefill(streams, state->layers.at(i));
    if (trace == nullptr) continue;
    (*trace)["layer" + std::to_string(i) + ".hidden"] = streams.hidden;
    (*trace)["layer" + std::to_string(i) + ".residual"] = streams.residual;
  }
  const auto out = norm_f->add(streams.hidden, streams.residual, residual_in_fp32_).y;
  if (trace != nullptr) (*trace)["after_norm_f"] = out;
  return out;
}

LanguageModelImpl::LanguageModelImpl(const LanguageModelOptions& chosen) : options(chosen) {
  backbone = register_module("backbone", LanguageBackbone(options));
  lm_head = register_module("lm_head", std::make_shared<torch::nn::Module>("lm_head"));
  head_ = options.tie_embeddings ? backbone->embedding->weight
                                 : torch::empty({options.padded_vocab(), options.d_model});
  head_ = lm_head->register_parameter("weight", head_);
  reset();
}

void LanguageModelImpl::reset() {
  const torch::NoGradGuard no_grad;
  backbone->embedding->weight.normal_(0, 0.02);
  if (!options.tie_embeddings) torch::nn::init::kaiming_uniform_(head_, std::sqrt(5.0));

  // the branches that write to the residual stream shrink with depth. The published initialiser
  // runs twice and the second run counts one branch a layer, also with an MLP
  const double shrink = std::sqrt(static_cast<double>(options.n_layer));
  const auto shrunk = [&](torch::Tensor& weight) {
    torch::nn::init::kaiming_uniform_(weight, std::sqrt(5.0));
    weight.div_(shrink);
  };
  for (size_t i = 0; i < backbone->layers->size(); ++i) {
    auto& block = backbone->layers->at<BlockImpl>(i);
    block.mixer->reset();
    for (const auto& child : block.mixer->named_children()) {
      auto* linear = child.value()->as<torch::nn::LinearImpl>();
      if (linear == nullptr) continue;
      if (child.key() == "in_proj" || child.key() == "out_proj") {
        if (linear->bias.defined()) linear->bias.zero_();
      }
      if (child.key() == "out_proj") shrunk(linear->weight);
    }
    if (!block.mlp.is_empty()) shrunk(block.mlp->fc2->weight);
  }
}

torch::Tensor LanguageModelImpl::forward(const torch::Tensor& ids) {
  return torch::linear(backbone(ids), head_);
}

torch::Tensor LanguageModelImpl::prefill(const torch::Tensor& ids, GenerationState& state) {
  return torch::linear(backbone(ids, &state), head_);
}

torch::Tensor LanguageModelImpl::step(const torch::Tensor& ids, GenerationState& state) {
  SERPENTINE_CHECK(ids.dim() == 1, kLanguageModelWho, "a step's ids must be [B], got ",
                   ids.sizes());
  return prefill(ids.unsqueeze(1), state).squeeze(1);
}

}  // namespace serpentine
