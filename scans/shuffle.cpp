// Another strategy over shuffled tokens: in training, more often in deeper layers.
//
// Huang et al., "Stochastic Layer-Wise Shuffle", arXiv 2408.17081. Put around
// `class_token` it moves that token too, as published.
#include <ATen/ATen.h>

#include "scans/walks.h"
#include "scans/wrapper.h"

namespace serpentine {
namespace {

struct ShuffleOptions : InnerOptions {
  double p = 0.5;
  void fields(Fields& f) {
    InnerOptions::fields(f);
    f("p", p, "probability in the last layer; it grows linearly from 0 in the first",
      {.least = 0, .most = 1});
  }
};

class Shuffle : public Wrapper {
 public:
  Shuffle(std::shared_ptr<Serialization> inner, double p) : Wrapper(std::move(inner)), p_(p) {}
  ScanOrder order(const TokenLayout& layout, const ScanContext& context) const override {
    const ScanOrder plain = inner_->order(layout, context);
    if (!context.training || context.layer == 0) return plain;
    const double here =
        p_ * static_cast<double>(context.layer) / static_cast<double>(context.num_layers - 1);
    const at::Tensor coin = at::rand({}, context.generator, at::kDouble);
    if (coin.item<double>() >= here) return plain;
    return relabeled(plain, random_walk(layout, context));
  }

 private:
  double p_;
};

}  // namespace

void add_shuffle(Registry<Serialization>& all) {
  all.add<ShuffleOptions>("shuffle", [&all](const ShuffleOptions& options) {
    return std::make_shared<Shuffle>(build_serialization(all, options.inner), options.p);
  });
}

}  // namespace serpentine
