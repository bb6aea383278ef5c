// A classifier of single tiles; a bag's logits are the mean, or each class's maximum, of its
// tiles'.
#include <torch/torch.h>

#include "core/nn/recompute.h"
#include "pathology/bag_model.h"
#include "pathology/memory_budget.h"
#include "pathology/pathology.h"

namespace serpentine {
namespace {

class PooledMil : public BagModel {
 public:
  PooledMil(const BagModelOptions& options, bool mean)
      : options_(options),
        mean_(mean),
        budget_(mean ? "mean_mil" : "max_mil", options.memory_budget) {
    options_.check(who());
    auto head = register_module("head", std::make_shared<PartsImpl>());
    first_ = head->linear("0", options_.in_dim, options_.hidden);
    // without dropout Python's list is one layer shorter
    last_ = head->linear(options_.dropout > 0 ? "3" : "2", options_.hidden, options_.classes);
    xavier_everywhere(*this);
  }

  BagOutput read(const Batch& batch, bool) override {
    const auto bounds = bag_bounds(who(), batch, options_.in_dim);
    BagOutput out;
    out.instance_logits = tile_logits(batch.input);
    std::vector<torch::Tensor> bags;
    for (size_t bag = 1; bag < bounds.size(); ++bag) {
      const auto tiles = out.instance_logits.slice(0, bounds[bag - 1], bounds[bag]);
      bags.push_back(mean_ ? tiles.mean(0) : tiles.amax(0));
    }
    out.logits = torch::stack(bags);
    out.attention = out.instance_logits;
    return out;
  }

 private:
  const char* who() const { return mean_ ? "mean_mil" : "max_mil"; }

  // [T, F] -> [T, C]; in parts only the features, the logits and what is dropped are kept
  torch::Tensor tile_logits(const torch::Tensor& tiles) {
    const int64_t hidden = options_.hidden, classes = options_.classes;
    const int64_t rows = budget_.rows(tiles.size(0), 4 * (options_.in_dim + 3 * classes) + hidden,
                                      4 * (torch::GradMode::is_enabled() ? 7 : 2) * hidden);
    std::vector<torch::Tensor> xs = {tiles};
    const auto mask = dropout_mask(tiles, hidden, options_.dropout, is_training());
    xs.insert(xs.end(), mask.begin(), mask.end());
    const auto part = [this, drops = !mask.empty()](const std::vector<torch::Tensor>& in) {
      const size_t at = drops ? 2 : 1;
      auto y = activate(torch::linear(in[0], in[at], in[at + 1]), options_.activation);
      if (drops) y = dropped(y, in[1], options_.dropout);
      return torch::linear(y, in[at + 2], in[at + 3]);
    };
    return recomputed_rows(part, xs, rows,
                           {first_->weight, first_->bias, last_->weight, last_->bias});
  }

  BagModelOptions options_;
  bool mean_;
  MemoryBudget budget_;
  torch::nn::Linear first_{nullptr}, last_{nullptr};
};

}  // namespace

void add_mean_max_mil(Registry<Model>& all) {
  for (const bool mean : {true, false}) {
    all.add<BagModelOptions>(mean ? "mean_mil" : "max_mil", [mean](const BagModelOptions& options) {
      return std::make_shared<PooledMil>(options, mean);
    });
  }
}

}  // namespace serpentine
