// iTransformer: variates as tokens, mixed by attention.
//
// Liu et al., "iTransformer: Inverted Transformers Are Effective for Time Series Forecasting",
// arXiv 2310.06625.
#include <torch/torch.h>

#include "core/check.h"
#include "timeseries/inverted.h"
#include "timeseries/timeseries.h"

namespace serpentine {
namespace {

struct ITransformerOptions : InvertedOptions {
  int64_t n_heads = 8;

  void fields(Fields& f) {
    InvertedOptions::fields(f);
    f("n_heads", n_heads, "attention heads", {.least = 1});
  }
};

class VariateAttention : public torch::nn::Module {
 public:
  explicit VariateAttention(const ITransformerOptions& options)
      : heads_(options.n_heads), dropout_(options.dropout) {
    SERPENTINE_CHECK(options.d_model % heads_ == 0, "itransformer",
                     "d_model must be a multiple of n_heads = ", heads_, ", got ", options.d_model);
    const auto linear = [&](const char* name) {
      return register_module(name, torch::nn::Linear(options.d_model, options.d_model));
    };
    query_ = linear("query_projection");
    key_ = linear("key_projection");
    value_ = linear("value_projection");
    out_ = linear("out_projection");
  }

  torch::Tensor forward(const torch::Tensor& x) {
    const auto split = [&](torch::nn::Linear& linear) {
      return linear(x).unflatten(2, {heads_, -1}).transpose(1, 2);
    };
    const torch::Tensor mixed = at::scaled_dot_product_attention(
        split(query_), split(key_), split(value_), {}, is_training() ? dropout_ : 0.0);
    return out_(mixed.transpose(1, 2).flatten(2));
  }

 private:
  int64_t heads_;
  double dropout_;
  torch::nn::Linear query_{nullptr}, key_{nullptr}, value_{nullptr}, out_{nullptr};
};

class ITransformerLayer : public InvertedLayer {
 public:
  explicit ITransformerLayer(const ITransformerOptions& options)
      : InvertedLayer(options), rate_(options.dropout) {
    attention_ = register_module("attention", std::make_shared<VariateAttention>(options));
  }
  torch::Tensor mix(const torch::Tensor& x) override {
    const torch::Tensor mixed = attention_->forward(x);
    record("attn", mixed);
    return torch::dropout(mixed, rate_, is_training());
  }

 private:
  double rate_;
  std::shared_ptr<VariateAttention> attention_;
};

}  // namespace

void add_itransformer(Registry<Model>& all) {
  all.add<ITransformerOptions>("itransformer", [](const ITransformerOptions& options) {
    return std::make_shared<InvertedForecaster>(
        "itransformer", options, [&] { return std::make_shared<ITransformerLayer>(options); });
  });
}

}  // namespace serpentine
