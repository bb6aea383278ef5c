// Dual-stream MIL: a classifier of tiles finds each class's critical tile; a bag is the mean of its
// tiles weighted by their likeness to that one.
//
// Li, Li & Eliceiri, arXiv 2011.08939, section 3.2.
#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/recompute.h"
#include "pathology/bag_model.h"
#include "pathology/memory_budget.h"
#include "pathology/pathology.h"

namespace serpentine {
namespace {

struct DsMilOptions {
  int64_t in_dim = 0, classes = 0, query = 128;
  bool nonlinear = true, passing_v = false;
  double dropout_v = 0;
  std::string memory_budget;
  void fields(Fields& f) {
    f("in_dim", in_dim, "features of a tile; 0: as many as the data have", {.least = 0});
    f("classes", classes, "outputs; 0: as the task needs", {.least = 0});
    f("query", query, "channels of the queries", {.least = 1});
    f("nonlinear", nonlinear, "queries of two layers instead of one");
    f("passing_v", passing_v, "a layer for the values, which else are the features");
    f("dropout_v", dropout_v, "before that layer", {.least = 0, .most = 0.95});
    memory_budget_field(f, memory_budget);
  }
};

class DsMil : public BagModel {
 public:
  explicit DsMil(const DsMilOptions& options)
      : options_(options), budget_("ds_mil", options.memory_budget) {
    const int64_t in = options_.in_dim, classes = options_.classes, width = options_.query;
    SERPENTINE_CHECK(in >= 1 && classes >= 1, "ds_mil", "in_dim and classes must be known, got ",
                     in, " and ", classes);
    tiles_ = register_module("i_classifier", std::make_shared<PartsImpl>())
                 ->group("fc")
                 ->linear("0", in, classes);
    auto bags = register_module("b_classifier", std::make_shared<PartsImpl>());
    if (options_.nonlinear) {
      auto query = bags->group("q");
      query_ = query->linear("0", in, width);
      query_out_ = query->linear("2", width, width);
    } else {
      query_ = bags->linear("q", in, width);
    }
    if (options_.passing_v) value_ = bags->group("v")->linear("1", in, in);
    score_ = bags->add("fcc", torch::nn::Conv1d(torch::nn::Conv1dOptions(classes, classes, in)));
  }

  BagOutput read(const Batch& batch, bool) override {
    const auto bounds = bag_bounds("ds_mil", batch, options_.in_dim);
    BagOutput out;
    out.instance_logits = tiles_(batch.input);
    const int64_t rows = rows_at_once(batch.input.size(0));
    const auto queries = query(batch.input, rows);
    const auto values = options_.passing_v ? values_of(batch.input, rows) : batch.input;
    std::vector<torch::Tensor> most, critical, scores;
    for (size_t bag = 1; bag < bounds.size(); ++bag) {
      const int64_t first = bounds[bag - 1], end = bounds[bag];
      const auto [best, place] = out.instance_logits.slice(0, first, end).max(0);
      most.push_back(best);
      critical.push_back(place);
      const auto likeness =
          queries.slice(0, first, end)
              .matmul(query(batch.input.slice(0, first, end).index_select(0, place), 0).t());
      scores.push_back(likeness / std::sqrt(static_cast<double>(options_.query)));
    }
    out.attention = torch::cat(scores);  // [T, C]
    const auto weights = bag_softmax(out.attention, bounds);
    const auto bags = bag_sum(weights, values, bounds);  // [B, C, F]
    out.logits = score_(bags).squeeze(2);
    out.second_logits = torch::stack(most);
    out.second_weight = 0.5;
    leave_trace("classes", out.instance_logits);
    leave_trace("critical_ids", torch::cat(critical));
    leave_trace("A", weights);
    leave_trace("B", bags);
    return out;
  }

 private:
  torch::Tensor query(const torch::Tensor& x, int64_t rows) {
    if (!options_.nonlinear) return query_(x);
    const auto part = [](const std::vector<torch::Tensor>& in) {
      const auto hidden = torch::relu(torch::linear(in[0], in[1], in[2]));
      return torch::tanh(torch::linear(hidden, in[3], in[4]));
    };
    return recomputed_rows(part, x, rows,
                           {query_->weight, query_->bias, query_out_->weight, query_out_->bias});
  }

  torch::Tensor values_of(const torch::Tensor& x, int64_t rows) {
    std::vector<torch::Tensor> xs = {x};
    const auto mask = dropout_mask(x, options_.in_dim, options_.dropout_v, is_training());
    xs.insert(xs.end(), mask.begin(), mask.end());
    const auto part = [this, at = xs.size()](const std::vector<torch::Tensor>& in) {
      const auto kept = at > 1 ? dropped(in[0], in[1], options_.dropout_v) : in[0];
      return torch::relu(torch::linear(kept, in[at], in[at + 1]));
    };
    return recomputed_rows(part, xs, rows, {value_->weight, value_->bias});
  }

  int64_t rows_at_once(int64_t tiles) {
    const bool learns = torch::GradMode::is_enabled();
    const int64_t values = options_.passing_v ? options_.in_dim : 0;
    // floats of a tile that stay: features, queries and values, with their gradients
    const int64_t whole = 4 * (options_.in_dim + (learns ? 2 : 1) * (options_.query + values)) +
                          (options_.dropout_v > 0 ? values : 0);
    const int64_t apart = 4 * (learns ? 4 : 1) * (options_.query + values);
    return budget_.rows(tiles, whole, apart);
  }

  DsMilOptions options_;
  MemoryBudget budget_;
  torch::nn::Linear tiles_{nullptr}, query_{nullptr}, query_out_{nullptr}, value_{nullptr};
  torch::nn::Conv1d score_{nullptr};
};

}  // namespace

void add_ds_mil(Registry<Model>& all) {
  all.add<DsMilOptions>(
      "ds_mil", [](const DsMilOptions& options) { return std::make_shared<DsMil>(options); });
}

}  // namespace serpentine
