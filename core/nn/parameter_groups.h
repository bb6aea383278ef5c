// Which parameters weight decay should leave alone, and how deep in the model each lies.
#pragma once

#include <map>
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

/// The depth of every parameter, from 0: what comes before the first block (embeddings) is 0, the
/// blocks follow in their sequence, what comes after the last (norm, head) is deepest. A block is a
/// numbered child of something called layer(s), block(s), stage(s) or level(s), the innermost such.
std::map<std::string, int64_t> parameter_depths(const torch::nn::Module& module);

}  // namespace serpentine
