#include "core/nn/parameter_groups.h"

#include <set>
#include <sstream>

#include <torch/torch.h>

namespace serpentine {
namespace {

bool spared(const std::string& name, const torch::Tensor& parameter) {
  const auto last = name.substr(name.rfind('.') + 1);  // npos + 1 is 0: the whole name
  return parameter.dim() <= 1 || last == "A_log" || last == "A_b_log" || last == "D" ||
         last == "bias" || last == "log_A_real" || last == "A_real" || last == "A_imag" ||
         last == "inv_dt";
}

/// "layers.0.blocks.1" of "layers.0.blocks.1.mlp.fc1.weight", or "".
std::string block_of(const std::string& name) {
  std::vector<std::string> words;
  std::istringstream stream(name);
  for (std::string word; std::getline(stream, word, '.');) words.push_back(word);
  const auto digits = [](const std::string& word) {
    return !word.empty() && word.find_first_not_of("0123456789") == std::string::npos;
  };
  std::string path, block;
  bool inside = false;  // the word before calls its numbers blocks
  for (const auto& word : words) {
    path += (path.empty() ? "" : ".") + word;
    if (inside && digits(word)) block = path;
    const std::string stem = word.substr(0, word.find_last_not_of("0123456789") + 1);
    inside = false;
    for (const char* known :
         {"layer", "layers", "block", "blocks", "stage", "stages", "level", "levels"})
      inside = inside || stem == known;
  }
  return block;
}

}  // namespace

std::map<std::string, int64_t> parameter_depths(const torch::nn::Module& module) {
  const auto parameters = module.named_parameters();
  std::map<std::string, int64_t> depths;
  std::set<std::string> known;
  std::vector<std::string> outside;
  for (const auto& item : parameters) {
    const std::string block = block_of(item.key());
    if (block.empty()) {
      outside.push_back(item.key());
      depths[item.key()] = static_cast<int64_t>(known.size()) + (known.empty() ? 0 : 1);
      continue;
    }
    known.insert(block);
    depths[item.key()] = static_cast<int64_t>(known.size());
  }
  // what stands between two blocks (a downsampling layer) goes with the block before it
  const auto most = static_cast<int64_t>(known.size());
  for (const auto& name : outside) {
    int64_t& depth = depths[name];
    if (depth > 0 && depth <= most) --depth;
  }
  return depths;
}

ParameterGroups parameter_groups(const torch::nn::Module& module) {
  ParameterGroups groups;
  std::set<const void*> seen;
  for (const auto& item : module.named_parameters()) {
    if (!item.value().requires_grad() || !seen.insert(item.value().unsafeGetTensorImpl()).second)
      continue;
    (spared(item.key(), item.value()) ? groups.not_decayed : groups.decayed).push_back(item.key());
  }
  return groups;
}

}  // namespace serpentine
