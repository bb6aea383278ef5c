// Optimisers by name, and their states by parameter name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>

#include "core/config.h"
#include "core/io/state_dict.h"

namespace serpentine {

struct OptimizerOptions {
  std::string type = "adamw";
  double lr = 1e-3;
  std::vector<double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0;
  bool amsgrad = false;
  double momentum = 0;
  bool nesterov = false;
  double layer_decay = 1;
  std::string decay = "weights";
  std::vector<std::string> no_weight_decay;
  void fields(Fields& f);
};

/// Groups of the parameters that require a gradient: with and without weight decay, and with
/// layer_decay one such pair for each depth (core/nn/parameter_groups.h).
std::unique_ptr<torch::optim::Optimizer> make_optimizer(const OptimizerOptions& options,
                                                        const torch::nn::Module& module);

/// The learning rates of a new optimiser's groups, and how to multiply them all.
std::vector<double> base_rates(const torch::optim::Optimizer& optimizer);
void set_rates(torch::optim::Optimizer& optimizer, const std::vector<double>& base, double factor);

/// The running averages and step counts of every parameter, as "name.exp_avg"; sorted as the module
/// is.
StateDict optimizer_state(const torch::optim::Optimizer& optimizer,
                          const torch::nn::Module& module);

/// Lays a saved state into a fresh optimiser of the same type. Throws when a name or shape does not
/// fit.
void set_optimizer_state(torch::optim::Optimizer& optimizer, const torch::nn::Module& module,
                         const StateDict& state);

}  // namespace serpentine
