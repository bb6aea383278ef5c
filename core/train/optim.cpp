#include "core/train/optim.h"

#include <set>
#include <tuple>
#include <utility>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {

namespace {

namespace optim = torch::optim;

/// Whether `name` fits `pattern`, in which each `*` stands for any text.
bool fits(const std::string& pattern, const std::string& name) {
  size_t p = 0, n = 0, star = std::string::npos, retry = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      retry = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p, ++n;
    } else if (star != std::string::npos) {
      p = star + 1;
      n = ++retry;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

template <class Options>
Options adam_options(const OptimizerOptions& from) {
  SERPENTINE_CHECK(from.betas.size() == 2, "optimizer", "betas must be two numbers, got ", from.betas.size());
  return Options(from.lr)
      .betas(std::make_tuple(from.betas[0], from.betas[1]))
      .eps(from.eps)
      .weight_decay(from.weight_decay)
      .amsgrad(from.amsgrad);
}

template <class Optimizer, class Options>
std::unique_ptr<optim::Optimizer> build(const Options& base, const std::vector<ParameterGroup>& groups) {
  std::vector<optim::OptimizerParamGroup> all;
  for (const auto& group : groups) {
    if (group.parameters.empty()) continue;
    auto options = std::make_unique<Options>(base);
    options->lr(base.lr() * group.lr_scale);
    if (!group.weight_decay) options->weight_decay(0);
    all.emplace_back(group.parameters, std::move(options));
  }
  return std::make_unique<Optimizer>(all, base);
}

}  // namespace

void OptimizerOptions::fields(Fields& f) {
  f("type", type, "the optimiser", {.choices = {"adamw", "adam", "sgd"}});
  f("lr", lr, "full learning rate", {.least = 0});
  f("betas", betas, "adam, adamw: decay of the two running averages");
  f("eps", eps, "adam, adamw: added to the denominator", {.least = 0});
  f("weight_decay", weight_decay, "weight decay: decoupled in adamw, part of the gradient in adam and sgd",
    {.least = 0});
  f("amsgrad", amsgrad, "adam, adamw: keep the largest second moment");
  f("momentum", momentum, "sgd: momentum", {.least = 0, .most = 1});
  f("nesterov", nesterov, "sgd: Nesterov's momentum");
  f("no_weight_decay", no_weight_decay, "parameters without weight decay, as names with *");
  f("decay_vectors", decay_vectors, "whether parameters of one axis (biases, norms) have weight decay");
}

std::vector<ParameterGroup> parameter_groups(const torch::nn::Module& module, const OptimizerOptions& options) {
  ParameterGroup with, without;
  without.weight_decay = false;
  std::set<const void*> seen;
  for (const auto& item : module.named_parameters()) {
    const bool repeated = !seen.insert(item.value().unsafeGetTensorImpl()).second;  // shared by two modules
    if (repeated || !item.value().requires_grad()) continue;
    bool decay = options.decay_vectors || item.value().dim() > 1;
    for (const auto& pattern : options.no_weight_decay) decay = decay && !fits(pattern, item.key());
    (decay ? with : without).parameters.push_back(item.value());
  }
  return {with, without};
}

std::unique_ptr<optim::Optimizer> make_optimizer(const OptimizerOptions& options,
                                                 const std::vector<ParameterGroup>& groups) {
  size_t count = 0;
  for (const auto& group : groups) count += group.parameters.size();
  SERPENTINE_CHECK(count > 0, "optimizer", "the model has no parameter that requires a gradient");
  if (options.type == "adamw") return build<optim::AdamW>(adam_options<optim::AdamWOptions>(options), groups);
  if (options.type == "adam") return build<optim::Adam>(adam_options<optim::AdamOptions>(options), groups);
  SERPENTINE_CHECK(options.type == "sgd", "optimizer", "the type must be adamw, adam or sgd, got '", options.type,
                   "'");
  optim::SGDOptions sgd(options.lr);
  sgd.momentum(options.momentum).nesterov(options.nesterov).weight_decay(options.weight_decay);
  return build<optim::SGD>(sgd, groups);
}

std::vector<double> base_rates(const optim::Optimizer& optimizer) {
  std::vector<double> rates;
  for (const auto& group : optimizer.param_groups()) rates.push_back(group.options().get_lr());
  return rates;
}

void set_rates(optim::Optimizer& optimizer, const std::vector<double>& base, double factor) {
  for (size_t i = 0; i < base.size(); ++i) optimizer.param_groups()[i].options().set_lr(base[i] * factor);
}

}  // namespace serpentine
