#include "core/train/optim.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/parameter_groups.h"
#include "core/train/fused_optim.h"

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

struct Group {
  std::vector<torch::Tensor> parameters;
  bool decayed = true;
  double rate = 1;  // part of the learning rate
};

std::vector<Group> divide(const OptimizerOptions& options, const torch::nn::Module& module) {
  const ParameterGroups names = parameter_groups(module);
  const auto parameters = module.named_parameters();
  const bool by_depth = options.layer_decay != 1;
  const auto depths = by_depth ? parameter_depths(module) : std::map<std::string, int64_t>{};
  int64_t deepest = 0;
  for (const auto& [name, depth] : depths) deepest = std::max(deepest, depth);
  std::map<std::pair<int64_t, bool>, Group> groups;  // by depth from the head, then decayed first
  const auto add = [&](const std::string& name, bool decay) {
    for (const auto& pattern : options.no_weight_decay) decay = decay && !fits(pattern, name);
    const int64_t up = by_depth ? deepest - depths.at(name) : 0;
    Group& group = groups[{up, !decay}];
    group.parameters.push_back(parameters[name]);
    group.decayed = decay;
    group.rate = std::pow(options.layer_decay, static_cast<double>(up));
  };
  for (const auto& name : names.decayed) add(name, true);
  for (const auto& name : names.not_decayed) add(name, options.decay == "all");
  std::vector<Group> all;
  for (auto& [key, group] : groups) all.push_back(std::move(group));
  return all;
}

template <class Optimizer, class Options>
std::unique_ptr<optim::Optimizer> build(const Options& base, const std::vector<Group>& groups) {
  std::vector<optim::OptimizerParamGroup> all;
  for (const auto& group : groups) {
    auto own = std::make_unique<Options>(base);
    own->lr(base.lr() * group.rate);
    if (!group.decayed) own->weight_decay(0);
    all.emplace_back(group.parameters, std::move(own));
  }
  return std::make_unique<FusedOnGpu<Optimizer>>(all, base);
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
  f("layer_decay", layer_decay,
    "factor of the learning rate from each block to the one before it; 1: all alike",
    {.least = 0.01, .most = 1});
  f("decay", decay,
    "which parameters have weight decay: weights (no biases, norms, A_log, D) or all",
    {.choices = {"weights", "all"}});
  f("no_weight_decay", no_weight_decay, "further parameters without weight decay, as names with *");
}

std::unique_ptr<optim::Optimizer> make_optimizer(const OptimizerOptions& options,
                                                 const torch::nn::Module& module) {
  const std::vector<Group> groups = divide(options, module);
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
