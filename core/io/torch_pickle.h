// Checkpoints that Python's torch.save wrote, and files that torch.load reads.
//
// The zip format (torch >= 1.6) and the stream of pickles before it. Only tensors, dictionaries and
// plain values are understood; every other class stays an inert, skipped value (core/io/pickle.h).
#pragma once

#include <string>
#include <vector>

#include "core/io/state_dict.h"

namespace serpentine {

struct TorchCheckpoint {
  StateDict tensors;                 // row-major CPU tensors that own their memory
  std::vector<std::string> skipped;  // classes and functions that the file names, never called
};

/// Unwraps {"state_dict": ...}, {"model": ...} and the like, and a `module.` prefix that all names
/// share. Throws c10::Error with file and cause, also when the file holds no state dict.
TorchCheckpoint read_torch_pickle(const std::string& path);

/// The tensors of a file that need not be a state dict: a tensor alone (under the name ""), or the
/// tensors of a dictionary. Throws as read_torch_pickle.
StateDict read_torch_tensors(const std::string& path);

/// Writes a dictionary of tensors that torch.load(weights_only=True) reads. Atomic.
void write_torch_state_dict(const std::string& path, const StateDict& tensors);

}  // namespace serpentine
