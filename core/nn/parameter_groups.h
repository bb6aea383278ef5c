// Which parameters weight decay should leave alone.
#pragma once

#include <string>
#include <vector>

#include <torch/nn/module.h>

namespace serpentine {

/// Names of a module's trainable parameters, each tensor once (tied weights under their first
/// name).
struct ParameterGroups {
  std::vector<std::string> decayed;
  std::vector<std::string> not_decayed;
};

/// Not decayed: A_log, D and the step-size bias of every mixer, A and dt of S4, all biases, and the
/// weights of norms (every parameter of one dimension). The published models mark A_log and D so;
/// the rest is customary.
ParameterGroups parameter_groups(const torch::nn::Module& module);

}  // namespace serpentine
