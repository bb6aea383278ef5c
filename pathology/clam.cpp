// CLAM: attention over tiles, and a clustering loss on those with the most and the least of it.
//
// Lu et al., "Data-efficient and weakly supervised computational pathology on whole-slide images",
// Nature Biomedical Engineering 2021. One row of attention (clam_sb) or one a class (clam_mb).
#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/recompute.h"
#include "pathology/bag_model.h"
#include "pathology/memory_budget.h"
#include "pathology/pathology.h"

namespace serpentine {
namespace {

struct ClamOptions {
  int64_t in_dim = 0, classes = 0, hidden = 512, attention = 256, k_sample = 8;
  double dropout = 0.25, instance_weight = 0.3;
  bool gated = true, subtyping = false;
  std::string instance_loss = "cross_entropy", memory_budget;
  void fields(Fields& f) {
    f("in_dim", in_dim, "features of a tile; 0: as many as the data have", {.least = 0});
    f("classes", classes, "outputs; 0: as the task needs", {.least = 0});
    f("hidden", hidden, "channels of an embedded tile", {.least = 1});
    f("attention", attention, "channels of the attention network", {.least = 1});
    f("k_sample", k_sample, "tiles with the most and with the least attention that are clustered",
      {.least = 1});
    f("dropout", dropout, "behind the embedding; above 0 also a quarter in the attention",
      {.least = 0, .most = 0.95});
    f("gated", gated, "a sigmoid gate beside the tanh branch");
    f("subtyping", subtyping, "classes exclude one another: the others' best tiles are negatives");
    f("instance_weight", instance_weight, "share of the clustering loss in the whole",
      {.least = 0, .most = 1});
    f("instance_loss", instance_loss, "of the clustering", {.choices = {"cross_entropy", "hinge"}});
    memory_budget_field(f, memory_budget);
  }
};

class Clam : public BagModel {
 public:
  Clam(const ClamOptions& options, bool branches)
      : options_(options), branches_(branches), budget_(who(), options.memory_budget) {
    const int64_t hidden = options_.hidden, width = options_.attention, classes = options_.classes;
    SERPENTINE_CHECK(options_.in_dim >= 1 && classes >= 1, who(),
                     "in_dim and classes must be known, got ", options_.in_dim, " and ", classes);
    auto net = register_module("attention_net", std::make_shared<PartsImpl>());
    embed_ = net->linear("0", options_.in_dim, hidden);
    auto attention = net->group("3");
    const int64_t rows = branches_ ? classes : 1;
    if (options_.gated) {
      tanh_ = attention->group("attention_a")->linear("0", hidden, width);
      gate_ = attention->group("attention_b")->linear("0", hidden, width);
      rows_ = attention->linear("attention_c", width, rows);
    } else {
      auto module = attention->group("module");
      tanh_ = module->linear("0", hidden, width);
      rows_ = module->linear(options_.dropout > 0 ? "3" : "2", width, rows);
    }
    if (branches_) {
      auto all = register_module("classifiers", std::make_shared<PartsImpl>());
      for (int64_t c = 0; c < classes; ++c)
        classifiers_.push_back(all->linear(std::to_string(c), hidden, 1));
    } else {
      classifiers_ = {register_module("classifiers", torch::nn::Linear(hidden, classes))};
    }
    auto instances = register_module("instance_classifiers", std::make_shared<PartsImpl>());
    for (int64_t c = 0; c < classes; ++c)
      instance_.push_back(instances->linear(std::to_string(c), hidden, 2));
  }

  BagOutput read(const Batch& batch, bool with_loss) override {
    const auto bounds = bag_bounds(who(), batch, options_.in_dim);
    const int64_t rows = rows_at_once(batch.input.size(0));
    const auto embedded =
        embedded_rows(batch.input, embed_, "relu", options_.dropout, is_training(), rows);
    BagOutput out;
    out.attention = scores(embedded, rows);  // [T, 1 or C]
    const auto weights = bag_softmax(out.attention, bounds);
    const auto bags = bag_sum(weights, embedded, bounds);  // [B, 1 or C, H]
    out.logits = classify(bags);
    leave_trace("A_raw", out.attention.t());
    leave_trace("features", bags.flatten(0, 1));
    if (!torch::GradMode::is_enabled()) {
      const auto tiles = embedded.unsqueeze(1);
      out.instance_logits = classify(branches_ ? tiles.expand({-1, options_.classes, -1}) : tiles);
    }
    if (with_loss && batch.target.defined() && options_.instance_weight > 0) {
      out.loss = instance_loss(weights, embedded, batch.target, bounds);
      out.loss_weight = options_.instance_weight;
    }
    return out;
  }

 private:
  const char* who() const { return branches_ ? "clam_mb" : "clam_sb"; }

  // bags: [B, 1 or C, H] -> [B, C]
  torch::Tensor classify(const torch::Tensor& bags) {
    if (!branches_) return classifiers_[0](bags.squeeze(1));
    std::vector<torch::Tensor> logits;
    for (size_t c = 0; c < classifiers_.size(); ++c)
      logits.push_back(classifiers_[c](bags.select(1, static_cast<int64_t>(c))));
    return torch::cat(logits, 1);
  }

  torch::Tensor scores(const torch::Tensor& embedded, int64_t rows) {
    const double dropout = options_.dropout > 0 ? 0.25 : 0;
    std::vector<torch::Tensor> xs = {embedded};
    for (int gate = 0; gate < (options_.gated ? 2 : 1); ++gate) {
      const auto mask = dropout_mask(embedded, options_.attention, dropout, is_training());
      xs.insert(xs.end(), mask.begin(), mask.end());
    }
    std::vector<torch::Tensor> weights = {rows_->weight, rows_->bias, tanh_->weight, tanh_->bias};
    if (options_.gated) weights.insert(weights.end(), {gate_->weight, gate_->bias});
    const bool drops = xs.size() > 1;
    const auto part = [at = xs.size(), gated = options_.gated, drops,
                       dropout](const std::vector<torch::Tensor>& in) {
      auto hidden = torch::tanh(torch::linear(in[0], in[at + 2], in[at + 3]));
      if (drops) hidden = dropped(hidden, in[1], dropout);
      if (gated) {
        const auto gate = torch::sigmoid(torch::linear(in[0], in[at + 4], in[at + 5]));
        hidden = hidden * (drops ? dropped(gate, in[2], dropout) : gate);
      }
      return torch::linear(hidden, in[at], in[at + 1]);
    };
    return recomputed_rows(part, xs, rows, weights);
  }

  int64_t rows_at_once(int64_t tiles) {
    const bool learns = torch::GradMode::is_enabled();
    // floats of a tile: features, embedding and its gradient stay, with what is dropped
    const int64_t hidden = options_.hidden, gates = (options_.gated ? 2 : 1) * options_.attention;
    const int64_t whole =
        4 * (options_.in_dim + (learns ? 2 : 1) * hidden) + (learns ? hidden + gates : 0);
    return budget_.rows(tiles, whole, 4 * (learns ? 6 * hidden + 7 * gates : hidden + 2 * gates));
  }

  // a mean over the bags
  torch::Tensor instance_loss(const torch::Tensor& weights, const torch::Tensor& embedded,
                              const torch::Tensor& target, const std::vector<int64_t>& bounds) {
    const torch::Tensor classes = target.to(torch::kCPU, torch::kLong).flatten().contiguous();
    std::vector<torch::Tensor> losses;
    for (size_t bag = 1; bag < bounds.size(); ++bag) {
      const int64_t first = bounds[bag - 1], end = bounds[bag];
      losses.push_back(loss_of_bag(weights.slice(0, first, end), embedded.slice(0, first, end),
                                   classes.const_data_ptr<int64_t>()[bag - 1]));
    }
    return torch::stack(losses).mean();
  }

  torch::Tensor loss_of_bag(const torch::Tensor& weights, const torch::Tensor& embedded,
                            int64_t truth) {
    const int64_t count = std::min(options_.k_sample, weights.size(0));
    auto total = torch::zeros({}, embedded.options());
    std::vector<torch::Tensor> labels, predictions;
    for (int64_t c = 0; c < options_.classes; ++c) {
      if (c != truth && !options_.subtyping) continue;
      const auto row = weights.select(1, branches_ ? c : 0);
      const auto most = std::get<1>(row.topk(count));
      auto chosen = most;
      auto label = torch::zeros({count}, most.options());
      if (c == truth) {
        const auto least = std::get<1>((-row).topk(count));
        chosen = torch::cat({most, least});
        label = torch::cat({label + 1, label});
        leave_trace("top_p_ids", most);
        leave_trace("top_n_ids", least);
      }
      const auto logits = instance_[static_cast<size_t>(c)](embedded.index_select(0, chosen));
      total = total + tile_loss(logits, label);
      labels.push_back(label);
      predictions.push_back(logits.argmax(1));
    }
    leave_trace("inst_labels", torch::cat(labels));
    leave_trace("inst_preds", torch::cat(predictions));
    return options_.subtyping ? total / static_cast<double>(options_.classes) : total;
  }

  torch::Tensor tile_loss(const torch::Tensor& logits, const torch::Tensor& label) const {
    namespace F = torch::nn::functional;
    if (options_.instance_loss == "hinge") return F::multi_margin_loss(logits, label);
    return F::cross_entropy(logits, label);
  }

  ClamOptions options_;
  bool branches_;
  MemoryBudget budget_;
  torch::nn::Linear embed_{nullptr}, tanh_{nullptr}, gate_{nullptr}, rows_{nullptr};
  std::vector<torch::nn::Linear> classifiers_, instance_;
};

}  // namespace

void add_clam(Registry<Model>& all) {
  for (const bool branches : {false, true}) {
    all.add<ClamOptions>(branches ? "clam_mb" : "clam_sb", [branches](const ClamOptions& options) {
      return std::make_shared<Clam>(options, branches);
    });
  }
}

}  // namespace serpentine
