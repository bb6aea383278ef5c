#include "core/train/optim.h"

#include <tuple>
#include <utility>

#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/parameter_groups.h"

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
  SERPENTINE_CHECK(from.betas.size() == 2, "optimizer", "betas must be two numbers, got ",
                   from.betas.size());
  return Options(from.lr)
      .betas(std::make_tuple(from.betas[0], from.betas[1]))
      .eps(from.eps)
      .weight_decay(from.weight_decay)
      .amsgrad(from.amsgrad);
}

struct Groups {
  std::vector<torch::Tensor> decayed, others;
};

Groups divide(const OptimizerOptions& options, const torch::nn::Module& module) {
  const ParameterGroups names = parameter_groups(module);
  const auto parameters = module.named_parameters();
  Groups groups;
  const auto add = [&](const std::string& name, bool decay) {
    for (const auto& pattern : options.no_weight_decay) decay = decay && !fits(pattern, name);
    (decay ? groups.decayed : groups.others).push_back(parameters[name]);
  };
  for (const auto& name : names.decayed) add(name, true);
  for (const auto& name : names.not_decayed) add(name, options.decay == "all");
  return groups;
}

template <class Optimizer, class Options>
std::unique_ptr<optim::Optimizer> build(const Options& base, const Groups& groups) {
  std::vector<optim::OptimizerParamGroup> all;
  if (!groups.decayed.empty()) all.emplace_back(groups.decayed, std::make_unique<Options>(base));
  if (!groups.others.empty()) {
    auto without = std::make_unique<Options>(base);
    without->weight_decay(0);
    all.emplace_back(groups.others, std::move(without));
  }
  return std::make_unique<Optimizer>(all, base);
}

}  // namespace

void OptimizerOptions::fields(Fields& f) {
  f("type", type, "the optimiser", {.choices = {"adamw", "adam", "sgd"}});
  f("lr", lr, "full learning rate", {.least = 0});
  f("betas", betas, "adam, adamw: decay of the two running averages");
  f("eps", eps, "adam, adamw: added to the denominator", {.least = 0});
  f("weight_decay", weight_decay,
    "weight decay: decoupled in adamw, part of the gradient in adam and sgd", {.least = 0});
  f("amsgrad", amsgrad, "adam, adamw: keep the largest second moment");
  f("momentum", momentum, "sgd: momentum", {.least = 0, .most = 1});
  f("nesterov", nesterov, "sgd: Nesterov's momentum");
  f("decay", decay,
    "which parameters have weight decay: weights (no biases, norms, A_log, D) or all",
    {.choices = {"weights", "all"}});
  f("no_weight_decay", no_weight_decay, "further parameters without weight decay, as names with *");
}

std::unique_ptr<optim::Optimizer> make_optimizer(const OptimizerOptions& options,
                                                 const torch::nn::Module& module) {
  const Groups groups = divide(options, module);
  if (options.type == "adamw")
    return build<optim::AdamW>(adam_options<optim::AdamWOptions>(options), groups);
  if (options.type == "adam")
    return build<optim::Adam>(adam_options<optim::AdamOptions>(options), groups);
  SERPENTINE_CHECK(options.type == "sgd", "optimizer", "the type must be adamw, adam or sgd, got '",
                   options.type, "'");
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
  for (size_t i = 0; i < base.size(); ++i)
    optimizer.param_groups()[i].options().set_lr(base[i] * factor);
}

}  // namespace serpentine
