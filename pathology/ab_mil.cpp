// Attention-based multiple-instance learning: a bag is the attention-weighted mean of its tiles.
//
// Ilse, Tomczak & Welling, arXiv 1802.04712, equations 8 (plain) and 9 (gated).
#include <torch/torch.h>

#include "core/nn/recompute.h"
#include "pathology/bag_model.h"
#include "pathology/memory_budget.h"
#include "pathology/pathology.h"

namespace serpentine {
namespace {

struct AbMilOptions : BagModelOptions {
  int64_t attention = 128;
  bool gated = false;
  void fields(Fields& f) {
    BagModelOptions::fields(f);
    f("attention", attention, "channels of the attention network", {.least = 1});
    f("gated", gated, "a sigmoid gate beside the tanh branch");
  }
};

class AbMil : public BagModel {
 public:
  explicit AbMil(const AbMilOptions& options)
      : options_(options), budget_("ab_mil", options.memory_budget) {
    options_.check("ab_mil");
    const int64_t hidden = options_.hidden, width = options_.attention;
    feature_ = register_module("feature", std::make_shared<PartsImpl>())
                   ->linear("0", options_.in_dim, hidden);
    if (options_.gated) {
      tanh_ =
          register_module("attention_V", std::make_shared<PartsImpl>())->linear("0", hidden, width);
      gate_ =
          register_module("attention_U", std::make_shared<PartsImpl>())->linear("0", hidden, width);
      score_ = register_module("attention_weights", torch::nn::Linear(width, 1));
    } else {
      auto attention = register_module("attention", std::make_shared<PartsImpl>());
      tanh_ = attention->linear("0", hidden, width);
      score_ = attention->linear("2", width, 1);
    }
    classifier_ = register_module("classifier", std::make_shared<PartsImpl>())
                      ->linear("0", hidden, options_.classes);
  }

  BagOutput read(const Batch& batch, bool) override {
    const auto bounds = bag_bounds("ab_mil", batch, options_.in_dim);
    const int64_t rows = rows_at_once(batch.input.size(0));
    const auto embedded = embedded_rows(batch.input, feature_, options_.activation,
                                        options_.dropout, is_training(), rows);
    leave_trace("after_feature", embedded);
    BagOutput out;
    out.attention =
        recomputed_rows([this](const std::vector<torch::Tensor>& in) { return scores(in); },
                        embedded, rows, score_weights());
    leave_trace(options_.gated ? "attn_logits" : "A_raw",
                options_.gated ? out.attention : out.attention.t());
    const auto pooled = bag_sum(bag_softmax(out.attention, bounds), embedded, bounds);
    out.logits = classifier_(pooled.squeeze(1));
    if (!torch::GradMode::is_enabled()) out.instance_logits = classifier_(embedded);
    return out;
  }

 private:
  // in: the embedded tiles, then score_weights()
  torch::Tensor scores(const std::vector<torch::Tensor>& in) const {
    auto hidden = torch::tanh(torch::linear(in[0], in[1], in[2]));
    if (options_.gated) hidden = hidden * torch::sigmoid(torch::linear(in[0], in[5], in[6]));
    return torch::linear(hidden, in[3], in[4]);
  }
  std::vector<torch::Tensor> score_weights() const {
    std::vector<torch::Tensor> all = {tanh_->weight, tanh_->bias, score_->weight, score_->bias};
    if (options_.gated) all.insert(all.end(), {gate_->weight, gate_->bias});
    return all;
  }
  int64_t rows_at_once(int64_t tiles) {
    const bool learns = torch::GradMode::is_enabled();
    // floats of a tile: features, embedding, its gradient and what is dropped stay; the rest lives
    // in a part
    const int64_t hidden = options_.hidden, gates = options_.gated ? 2 : 1;
    const int64_t whole = 4 * (options_.in_dim + (learns ? 2 : 1) * hidden) + (learns ? hidden : 0);
    const int64_t apart = 4 * (learns ? 6 * hidden + 4 * gates * options_.attention
                                      : hidden + 2 * gates * options_.attention);
    return budget_.rows(tiles, whole, apart);
  }

  AbMilOptions options_;
  MemoryBudget budget_;
  torch::nn::Linear feature_{nullptr}, tanh_{nullptr}, gate_{nullptr}, score_{nullptr},
      classifier_{nullptr};
};

}  // namespace

void add_ab_mil(Registry<Model>& all) {
  all.add<AbMilOptions>(
      "ab_mil", [](const AbMilOptions& options) { return std::make_shared<AbMil>(options); });
}

}  // namespace serpentine
