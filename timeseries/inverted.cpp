#include "timeseries/inverted.h"

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {

namespace nn = torch::nn;
namespace F = torch::nn::functional;

void InvertedOptions::fields(Fields& f) {
  ForecastModelOptions::fields(f);
  f("d_model", d_model, "width of a token", {.least = 1});
  f("d_ff", d_ff, "width of the feed-forward layer", {.least = 1});
  f("e_layers", e_layers, "layers", {.least = 1});
  f("dropout", dropout, "dropout of the embedding and the layers", {.least = 0, .most = 1});
  f("activation", activation, "of the feed-forward layer", {.choices = {"gelu", "relu"}});
  f("use_norm", use_norm, "centre and scale each window by itself");
}

InvertedLayer::InvertedLayer(const InvertedOptions& options) : relu_(options.activation == "relu") {
  conv1 = register_module("conv1", nn::Conv1d(nn::Conv1dOptions(options.d_model, options.d_ff, 1)));
  conv2 = register_module("conv2", nn::Conv1d(nn::Conv1dOptions(options.d_ff, options.d_model, 1)));
  norm1 = register_module("norm1", nn::LayerNorm(nn::LayerNormOptions({options.d_model})));
  norm2 = register_module("norm2", nn::LayerNorm(nn::LayerNormOptions({options.d_model})));
  dropout = register_module("dropout", nn::Dropout(options.dropout));
}

torch::Tensor InvertedLayer::forward(const torch::Tensor& x, int64_t keep) {
  const torch::Tensor mixed = norm1((x + mix(x)).narrow(1, 0, keep));
  torch::Tensor y = F::linear(mixed, conv1->weight.squeeze(2), conv1->bias);
  y = dropout(relu_ ? torch::relu(y) : torch::gelu(y));
  y = dropout(F::linear(y, conv2->weight.squeeze(2), conv2->bias));
  return norm2(mixed + y);
}

InvertedForecaster::InvertedForecaster(const char* name, const InvertedOptions& chosen,
                                       const MakeLayer& make_layer)
    : who(name), options(chosen) {
  auto embedding =
      register_module("enc_embedding", std::make_shared<nn::Module>("VariateEmbedding"));
  value_embedding_ =
      embedding->register_module("value_embedding", nn::Linear(options.seq_len, options.d_model));
  if (options.masked) {
    mask_embedding_ = embedding->register_module(
        "mask_embedding",
        nn::Linear(nn::LinearOptions(options.seq_len, options.d_model).bias(false)));
    torch::nn::init::zeros_(mask_embedding_->weight);
  }
  if (options.future > 0) {
    future_embedding_ = embedding->register_module(
        "future_embedding", nn::Linear(options.seq_len + options.pred_len, options.d_model));
  }
  dropout_ = embedding->register_module("dropout", nn::Dropout(options.dropout));
  auto encoder = register_module("encoder", std::make_shared<nn::Module>("Encoder"));
  auto list = encoder->register_module("attn_layers", std::make_shared<nn::Module>("Layers"));
  for (int64_t i = 0; i < options.e_layers; ++i) {
    layers.push_back(list->register_module(std::to_string(i), make_layer()));
  }
  norm = encoder->register_module("norm", nn::LayerNorm(nn::LayerNormOptions({options.d_model})));
  projector_ = register_module("projector",
                               nn::Linear(options.d_model, options.pred_len * options.outputs()));
}

torch::Tensor InvertedForecaster::embed(const torch::Tensor& x, const Batch& batch) {
  std::vector<torch::Tensor> windows = {x};
  for (const char* name : {"marks", "extra", "elapsed"}) {
    if (batch.get(name).defined()) windows.push_back(batch.get(name));
  }
  torch::Tensor tokens = value_embedding_(torch::cat(windows, 2).transpose(1, 2));
  if (mask_embedding_ && batch.get("mask").defined()) {
    const torch::Tensor missing = mask_embedding_((1 - batch.get("mask")).transpose(1, 2));
    tokens = tokens + torch::constant_pad_nd(missing, {0, 0, 0, tokens.size(1) - missing.size(1)});
  }
  if (future_embedding_)
    tokens = torch::cat({tokens, future_embedding_(batch.get("future").transpose(1, 2))}, 1);
  return dropout_(tokens);
}

void InvertedForecaster::trace_layer(size_t index) {
  layers[index]->on_record = nullptr;
  if (!trace) return;
  layers[index]->on_record = [this, index](const std::string& part, const torch::Tensor& tensor) {
    leave_trace("layer" + std::to_string(index) + "." + part, tensor);
  };
}

torch::Tensor InvertedForecaster::forward(const Batch& batch) {
  check_window(who, batch, options);
  WindowStats stats;
  const torch::Tensor x =
      options.use_norm ? normalised(batch.input, batch.get("mask"), stats) : batch.input;
  torch::Tensor tokens = embed(x, batch);
  leave_trace("after_embed", tokens);
  const int64_t targets = options.forecast_variates(batch.input.size(2));
  for (size_t i = 0; i < layers.size(); ++i) {
    trace_layer(i);
    // after the last mixing only the targets' tokens count, unless someone looks at the others
    const bool last = i + 1 == layers.size() && !trace;
    tokens = layers[i]->forward(tokens, last ? targets : tokens.size(1));
    leave_trace("after_layer" + std::to_string(i), tokens);
  }
  tokens = norm(tokens);
  leave_trace("after_encoder", tokens);
  const torch::Tensor output = options.to_output(projector_(tokens.narrow(1, 0, targets)));
  return options.use_norm ? denormalised(output, stats) : output;
}

}  // namespace serpentine
