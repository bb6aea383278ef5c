// S4MIL: the tiles through one diagonal state space (S4D), then each channel's maximum.
//
// Fillioux et al., "Structured state space models for multiple instance learning in digital
// pathology", arXiv 2306.15789; as in MambaMIL's program: no residual around the block.
#include <torch/torch.h>

#include "core/nn/s4d.h"
#include "pathology/bag_model.h"
#include "pathology/pathology.h"

namespace serpentine {
namespace {

struct S4MilOptions : BagModelOptions {
  int64_t d_state = 32;
  void fields(Fields& f) {
    BagModelOptions::fields(f);
    f("d_state", d_state, "states a channel, an even number", {.least = 2});
  }
};

class S4Mil : public BagModel {
 public:
  explicit S4Mil(const S4MilOptions& options) : options_(options) {
    options_.check("s4_mil");
    refuse_memory_budget("s4_mil", options_.memory_budget);
    const int64_t hidden = options_.hidden;
    embed_ = register_module("_fc1", std::make_shared<PartsImpl>())
                 ->linear("0", options_.in_dim, hidden);
    S4dOptions s4d;
    s4d.d_model = hidden;
    s4d.d_state = options_.d_state;
    auto block = register_module("s4_block", std::make_shared<PartsImpl>());
    norm_ = block->add("0", torch::nn::LayerNorm(torch::nn::LayerNormOptions({hidden})));
    mixer_ = block->add("1", S4d(s4d));
    classifier_ = register_module("classifier", torch::nn::Linear(hidden, options_.classes));
  }

  BagOutput read(const Batch& batch, bool) override {
    const auto bounds = bag_bounds("s4_mil", batch, options_.in_dim);
    const auto embedded = torch::dropout(activate(embed_(batch.input), options_.activation),
                                         options_.dropout, is_training());
    leave_trace("after_fc1", embedded.unsqueeze(0));
    const auto normed = norm_(embedded);
    std::vector<torch::Tensor> bags, tiles;
    for (size_t bag = 1; bag < bounds.size(); ++bag) {
      const auto own = normed.slice(0, bounds[bag - 1], bounds[bag]).unsqueeze(0);
      if (trace) leave_trace("kernel", mixer_->kernel(own.size(1)));
      const auto mixed = mixer_(own);
      leave_trace("after_s4", mixed);
      bags.push_back(mixed.amax(1));
      tiles.push_back(mixed.squeeze(0));
    }
    BagOutput out;
    out.logits = classifier_(torch::cat(bags));
    if (!torch::GradMode::is_enabled()) {
      out.instance_logits = classifier_(torch::cat(tiles));
      out.attention = out.instance_logits;  // a maximum has no attention of its own
    }
    return out;
  }

 private:
  S4MilOptions options_;
  torch::nn::Linear embed_{nullptr}, classifier_{nullptr};
  torch::nn::LayerNorm norm_{nullptr};
  S4d mixer_{nullptr};
};

}  // namespace

void add_s4_mil(Registry<Model>& all) {
  all.add<S4MilOptions>(
      "s4_mil", [](const S4MilOptions& options) { return std::make_shared<S4Mil>(options); });
}

}  // namespace serpentine
