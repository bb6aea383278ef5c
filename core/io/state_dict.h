// A state dict, the files it lives in, and how one is laid into a module.
#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace serpentine {

/// Names and tensors in file order.
using StateDict = std::vector<std::pair<std::string, torch::Tensor>>;

/// Reads `.safetensors`, `.pth`, `.pt` or `.bin` by content, not by name. Unwraps {"model": ...},
/// {"state_dict": ...} and a `module.` prefix. Throws with the file and the cause: also when a file
/// of write_weights does not hold what was written.
StateDict read_state_dict(const std::string& path);

/// CRC-32, as text, of names and content in the order of the names, and of `text` before them.
std::string checksum(const StateDict& tensors, const std::string& text = "");

/// Writes a .safetensors file whose metadata hold the checksum, which read_state_dict verifies.
void write_weights(const std::string& path, const StateDict& weights,
                   std::map<std::string, std::string> metadata = {});

/// All parameters and buffers of a module under the reference's names.
StateDict state_dict(const torch::nn::Module& module);

/// A module whose published checkpoints hold tensors under a second name, because one part is owned
/// twice. Files may hold either name or both; our own files hold the first.
class AliasedKeys {
 public:
  virtual ~AliasedKeys() = default;
  /// {second, first}: where the name of a file has the text `second` (at its begin, if that starts
  /// with '^'), the module's own name has `first`.
  virtual std::vector<std::pair<std::string, std::string>> aliases() const = 0;
};

/// The module's own name of a tensor, and every name that a published checkpoint has it under.
std::string own_key(const torch::nn::Module& module, const std::string& key);
std::vector<std::string> published_keys(const torch::nn::Module& module, const std::string& key);

/// What did not fit when a state dict was laid into a module.
struct LoadReport {
  std::vector<std::string> missing;     // the module has it, the file does not
  std::vector<std::string> unexpected;  // the file has it, the module does not
  std::vector<std::string> tolerated;   // unexpected, but the model says it has no use for it
  std::vector<std::string> shapes;      // "name: the module has [2, 3], the file [2, 4]"
  bool ok() const { return missing.empty() && unexpected.empty() && shapes.empty(); }
  std::string text() const;  // a table for people
};

/// Copies what fits. `tolerated`: name prefixes, or patterns with one `*`, that may be left over.
LoadReport load_state_dict(torch::nn::Module& module, const StateDict& weights,
                           const std::vector<std::string>& tolerated = {});

}  // namespace serpentine
