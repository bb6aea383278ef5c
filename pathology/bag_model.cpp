#include "pathology/bag_model.h"

#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/recompute.h"

namespace serpentine {

void BagModelOptions::fields(Fields& f) {
  f("in_dim", in_dim, "features of a tile; 0: as many as the data have", {.least = 0});
  f("classes", classes, "outputs: classes, time bins, or 1 risk; 0: as the task needs",
    {.least = 0});
  f("hidden", hidden, "channels of an embedded tile", {.least = 1});
  f("dropout", dropout, "behind the embedding", {.least = 0, .most = 0.95});
  f("activation", activation, "of the embedding", {.choices = {"relu", "gelu"}});
  memory_budget_field(f, memory_budget);
}

void memory_budget_field(Fields& f, std::string& budget) {
  f("memory_budget", budget,
    "memory for a batch of bags in the model, as 8GiB; what would take more is computed in parts, "
    "again in the backward pass, with the same result. Empty: everything in one piece");
}

void BagModelOptions::check(const char* who) const {
  SERPENTINE_CHECK(in_dim >= 1 && classes >= 1, who, "in_dim and classes must be known, got ",
                   in_dim, " and ", classes);
}

void refuse_memory_budget(const char* who, const std::string& budget) {
  SERPENTINE_CHECK(budget.empty(), who, "it computes a bag in one piece and keeps no ",
                   "memory_budget; mamba_mil, ab_mil, ds_mil, clam_sb, clam_mb, mean_mil and ",
                   "max_mil do");
}

std::vector<int64_t> bag_bounds(const char* who, const Batch& batch, int64_t in_dim) {
  check_shape(who, batch.input, "input", {-1, in_dim}, "T, F");
  std::vector<int64_t> bounds = {0, batch.input.size(0)};
  if (batch.offsets.defined()) {
    const torch::Tensor host = batch.offsets.to(torch::kCPU, torch::kLong).contiguous();
    bounds.assign(host.const_data_ptr<int64_t>(), host.const_data_ptr<int64_t>() + host.numel());
    SERPENTINE_CHECK(
        bounds.size() >= 2 && bounds.front() == 0 && bounds.back() == batch.input.size(0), who,
        "offsets must run from 0 to the ", batch.input.size(0), " tiles");
  }
  for (size_t bag = 1; bag < bounds.size(); ++bag) {
    SERPENTINE_CHECK(bounds[bag] > bounds[bag - 1], who, "bag ", bag - 1, " holds no tile");
  }
  return bounds;
}

torch::Tensor bag_softmax(const torch::Tensor& scores, const std::vector<int64_t>& bounds) {
  if (bounds.size() == 2) return scores.softmax(0);
  std::vector<torch::Tensor> parts;
  for (size_t bag = 1; bag < bounds.size(); ++bag)
    parts.push_back(scores.slice(0, bounds[bag - 1], bounds[bag]).softmax(0));
  return torch::cat(parts);
}

torch::Tensor bag_sum(const torch::Tensor& weights, const torch::Tensor& values,
                      const std::vector<int64_t>& bounds) {
  std::vector<torch::Tensor> sums;
  for (size_t bag = 1; bag < bounds.size(); ++bag) {
    const int64_t first = bounds[bag - 1], end = bounds[bag];
    sums.push_back(weights.slice(0, first, end).t().matmul(values.slice(0, first, end)));
  }
  return torch::stack(sums);
}

torch::Tensor activate(const torch::Tensor& x, const std::string& activation) {
  return activation == "gelu" ? torch::gelu(x) : torch::relu(x);
}

std::vector<torch::Tensor> dropout_mask(const torch::Tensor& like, int64_t channels, double dropout,
                                        bool training) {
  if (!training || dropout <= 0) return {};
  const torch::NoGradGuard no_grad;
  return {torch::empty({like.size(0), channels}, like.options().dtype(torch::kBool))
              .bernoulli_(1 - dropout)};
}

torch::Tensor dropped(const torch::Tensor& x, const torch::Tensor& mask, double dropout) {
  return x * mask.to(x.scalar_type()).div_(1 - dropout);
}

torch::Tensor embedded_rows(const torch::Tensor& x, const torch::nn::Linear& layer,
                            const std::string& activation, double dropout, bool training,
                            int64_t rows) {
  if (rows <= 0 || rows >= x.size(0)) {
    const auto y = activate(torch::linear(x, layer->weight, layer->bias), activation);
    return torch::dropout(y, dropout, training);
  }
  std::vector<torch::Tensor> xs = {x};
  const auto mask = dropout_mask(x, layer->options.out_features(), dropout, training);
  xs.insert(xs.end(), mask.begin(), mask.end());
  const bool drops = !mask.empty();
  const auto part = [activation, dropout, drops](const std::vector<torch::Tensor>& in) {
    const size_t weight = drops ? 2 : 1;
    const auto y = activate(torch::linear(in[0], in[weight], in[weight + 1]), activation);
    return drops ? dropped(y, in[1], dropout) : y;
  };
  return recomputed_rows(part, xs, rows, {layer->weight, layer->bias});
}

torch::nn::Linear PartsImpl::linear(const std::string& name, int64_t in, int64_t out) {
  return add(name, torch::nn::Linear(in, out));
}

std::shared_ptr<PartsImpl> PartsImpl::group(const std::string& name) {
  return add(name, std::make_shared<PartsImpl>());
}

void xavier_everywhere(torch::nn::Module& module) {
  const torch::NoGradGuard no_grad;
  for (const auto& each : module.modules(/*include_self=*/false)) {
    if (auto* linear = each->as<torch::nn::Linear>()) {
      torch::nn::init::xavier_normal_(linear->weight);
      if (linear->bias.defined()) linear->bias.zero_();
    } else if (auto* norm = each->as<torch::nn::LayerNorm>()) {
      norm->weight.fill_(1);
      norm->bias.zero_();
    }
  }
}

}  // namespace serpentine
