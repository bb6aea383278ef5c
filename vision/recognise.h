// Which model a checkpoint belongs to, from the names and shapes of its tensors.
#pragma once

#include <string>
#include <vector>

#include "core/io/state_dict.h"

namespace serpentine {

struct Recognised {
  std::string family;   // the model's `type`
  std::string size;     // "vim tiny (stride 8)", "vmamba small", or "" when it is none of those
  std::string options;  // of the model, a JSON text with `type`
  std::vector<std::string> notes;  // what shapes cannot tell, and what was assumed
  StateDict weights;               // without the prefixes of training programs
};

/// Reads vim, vmamba, efficient_vmamba, shuffle_mamba, plain_mamba, medmamba and resnet. Throws a
/// sentence when it is none of them.
Recognised recognise(StateDict weights);

}  // namespace serpentine
