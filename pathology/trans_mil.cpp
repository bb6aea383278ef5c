// TransMIL: a class token attends to the tiles, laid on a square whose neighbourhoods a few
// convolutions mix.
//
// Shao et al., arXiv 2106.00908, algorithms 2 (position) and 3.
#include <cmath>

#include <torch/torch.h>

#include "pathology/nystrom.h"
#include "pathology/pathology.h"

namespace serpentine {
namespace {

class LayerImpl : public torch::nn::Module {
 public:
  explicit LayerImpl(int64_t dim) {
    norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim})));
    attn = register_module("attn", NystromAttention(dim));
  }
  torch::nn::LayerNorm norm{nullptr};
  NystromAttention attn{nullptr};
};
TORCH_MODULE(Layer);

// PPEG: depthwise convolutions over the square; the class token goes past them
class PositionImpl : public torch::nn::Module {
 public:
  explicit PositionImpl(int64_t dim) {
    const auto conv = [&](const char* name, int64_t width) {
      return register_module(
          name, torch::nn::Conv2d(
                    torch::nn::Conv2dOptions(dim, dim, width).padding(width / 2).groups(dim)));
    };
    proj = conv("proj", 7);
    proj1 = conv("proj1", 5);
    proj2 = conv("proj2", 3);
  }
  // x: [1, 1 + side^2, dim]
  torch::Tensor forward(const torch::Tensor& x, int64_t side) {
    const auto grid = x.slice(1, 1).transpose(1, 2).reshape({x.size(0), x.size(2), side, side});
    const auto mixed = proj(grid) + grid + proj1(grid) + proj2(grid);
    return torch::cat({x.narrow(1, 0, 1), mixed.flatten(2).transpose(1, 2)}, 1);
  }

 private:
  torch::nn::Conv2d proj{nullptr}, proj1{nullptr}, proj2{nullptr};
};
TORCH_MODULE(Position);

class TransMil : public BagModel {
 public:
  explicit TransMil(const BagModelOptions& options) : options_(options) {
    options_.check("trans_mil");
    refuse_memory_budget("trans_mil", options_.memory_budget);
    const int64_t hidden = options_.hidden;
    embed_ = register_module("_fc1", std::make_shared<PartsImpl>())
                 ->linear("0", options_.in_dim, hidden);
    token_ = register_parameter("cls_token", torch::randn({1, 1, hidden}) * 1e-6);
    first_ = register_module("layer1", Layer(hidden));
    second_ = register_module("layer2", Layer(hidden));
    position_ = register_module("pos_layer", Position(hidden));
    norm_ = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({hidden})));
    classifier_ = register_module("classifier", torch::nn::Linear(hidden, options_.classes));
    xavier_everywhere(*this);
  }

  BagOutput read(const Batch& batch, bool) override {
    const auto bounds = bag_bounds("trans_mil", batch, options_.in_dim);
    const auto embedded = torch::dropout(activate(embed_(batch.input), options_.activation),
                                         options_.dropout, is_training());
    std::vector<torch::Tensor> logits, attention, tiles;
    for (size_t bag = 1; bag < bounds.size(); ++bag) {
      const auto own = embedded.slice(0, bounds[bag - 1], bounds[bag]);
      const auto mixed = mix(own.unsqueeze(0), attention);
      const auto normed = norm_(mixed);
      logits.push_back(classifier_(normed.select(1, 0)));
      if (!torch::GradMode::is_enabled())
        tiles.push_back(classifier_(normed[0].narrow(0, 1, own.size(0))));
    }
    BagOutput out;
    out.logits = torch::cat(logits);
    if (!tiles.empty()) {
      out.instance_logits = torch::cat(tiles);
      out.attention = torch::cat(attention).unsqueeze(1);
    }
    return out;
  }

 private:
  // bag: [1, N, H] -> [1, 1 + side^2, H]; adds the class token's attention to N tiles
  torch::Tensor mix(const torch::Tensor& bag, std::vector<torch::Tensor>& attention) {
    const int64_t count = bag.size(1);
    auto side = static_cast<int64_t>(std::sqrt(static_cast<double>(count)));
    while (side * side < count) ++side;
    auto x = torch::cat({token_, bag, bag.narrow(1, 0, side * side - count)}, 1);
    leave_trace("tokens_in", x);
    const auto attended = first_->attn(first_->norm(x));
    leave_trace("layer1.attn_out", attended);
    x = x + attended;
    leave_trace("after_layer1", x);
    x = position_(x, side);
    leave_trace("after_ppeg", x);
    const auto normed = second_->norm(x);
    if (!torch::GradMode::is_enabled())
      attention.push_back(second_->attn->first_row(normed).narrow(0, 1, count));
    x = x + second_->attn(normed);
    leave_trace("after_layer2", x);
    return x;
  }

  BagModelOptions options_;
  torch::nn::Linear embed_{nullptr}, classifier_{nullptr};
  torch::Tensor token_;  // [1, 1, H]
  Layer first_{nullptr}, second_{nullptr};
  Position position_{nullptr};
  torch::nn::LayerNorm norm_{nullptr};
};

}  // namespace

void add_trans_mil(Registry<Model>& all) {
  all.add<BagModelOptions>("trans_mil", [](const BagModelOptions& options) {
    return std::make_shared<TransMil>(options);
  });
}

}  // namespace serpentine
