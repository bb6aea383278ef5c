// A classifier of single tiles; a bag's logits are the mean, or each class's maximum, of its
// tiles'.
#include <torch/torch.h>

#include "pathology/bag_model.h"
#include "pathology/pathology.h"

namespace serpentine {
namespace {

class PooledMil : public BagModel {
 public:
  PooledMil(const BagModelOptions& options, bool mean) : options_(options), mean_(mean) {
    options_.check(who());
    auto head = register_module("head", std::make_shared<PartsImpl>());
    first_ = head->linear("0", options_.in_dim, options_.hidden);
    // without dropout Python's list is one layer shorter
    last_ = head->linear(options_.dropout > 0 ? "3" : "2", options_.hidden, options_.classes);
    xavier_everywhere(*this);
  }

  BagOutput read(const Batch& batch, bool) override {
    const auto bounds = bag_bounds(who(), batch, options_.in_dim);
    const auto embedded = torch::dropout(activate(first_(batch.input), options_.activation),
                                         options_.dropout, is_training());
    BagOutput out;
    out.instance_logits = last_(embedded);
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

  BagModelOptions options_;
  bool mean_;
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
