#include "core/io/state_dict.h"

#include <torch/torch.h>

#include <zlib.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <sstream>

#include "core/io/bytes.h"
#include "core/io/safetensors.h"
#include "core/io/torch_pickle.h"

namespace serpentine {
namespace {

constexpr const char* kChecksum = "weights_checksum";

/// `pattern` is a prefix, or has one `*` that stands for any text.
bool matches(const std::string& name, const std::string& pattern) {
  const size_t star = pattern.find('*');
  if (star == std::string::npos) return name.rfind(pattern, 0) == 0;
  const std::string head = pattern.substr(0, star);
  const std::string tail = pattern.substr(star + 1);
  return name.size() >= head.size() + tail.size() && name.rfind(head, 0) == 0 &&
         name.compare(name.size() - tail.size(), tail.size(), tail) == 0;
}

std::string text_of(at::IntArrayRef sizes) {
  std::ostringstream text;
  text << sizes;
  return text.str();
}

void list(std::ostringstream& out, const char* title, const std::vector<std::string>& names) {
  constexpr size_t kMost = 20;
  if (names.empty()) return;
  out << title << " (" << names.size() << ")\n";
  for (size_t i = 0; i < std::min(names.size(), kMost); ++i) out << "  " << names[i] << "\n";
  if (names.size() > kMost) out << "  and " << names.size() - kMost << " more\n";
}

/// `name` with `from` (anchored by '^') replaced by `to` everywhere; unchanged where it is absent.
std::string renamed(std::string name, std::string from, const std::string& to) {
  const bool anchored = from.rfind('^', 0) == 0;
  if (anchored) from.erase(0, 1);
  if (anchored) return name.rfind(from, 0) == 0 ? to + name.substr(from.size()) : name;
  for (size_t at = name.find(from); at != std::string::npos; at = name.find(from, at + to.size()))
    name.replace(at, from.size(), to);
  return name;
}

}  // namespace

std::string own_key(const torch::nn::Module& module, const std::string& key) {
  const auto* aliased = dynamic_cast<const AliasedKeys*>(&module);
  std::string own = key;
  if (aliased != nullptr) {
    for (const auto& [second, first] : aliased->aliases()) own = renamed(own, second, first);
  }
  return own;
}

std::vector<std::string> published_keys(const torch::nn::Module& module, const std::string& key) {
  std::vector<std::string> names = {key};
  const auto* aliased = dynamic_cast<const AliasedKeys*>(&module);
  if (aliased == nullptr) return names;
  for (const auto& [second, first] : aliased->aliases()) {
    const bool anchored = second.rfind('^', 0) == 0;
    for (size_t i = 0, count = names.size(); i < count; ++i) {
      const auto other = anchored ? renamed(names[i], "^" + first, second.substr(1))
                                  : renamed(names[i], first, second);
      if (other != names[i] && own_key(module, other) == key) names.push_back(other);
    }
  }
  return names;
}

StateDict state_dict(const torch::nn::Module& module) {
  StateDict all;
  for (const auto& item : module.named_parameters()) all.emplace_back(item.key(), item.value());
  for (const auto& item : module.named_buffers()) all.emplace_back(item.key(), item.value());
  return all;
}

LoadReport load_state_dict(torch::nn::Module& module, const StateDict& weights,
                           const std::vector<std::string>& tolerated) {
  const torch::NoGradGuard no_grad;
  LoadReport report;
  std::map<std::string, torch::Tensor> given;
  for (const auto& [name, tensor] : weights) given[own_key(module, name)] = tensor;
  for (auto& [name, target] : state_dict(module)) {
    const auto source = given.find(name);
    if (source == given.end()) {
      report.missing.push_back(name);
      continue;
    }
    if (target.sizes() == source->second.sizes()) {
      target.copy_(source->second);
    } else {
      report.shapes.push_back(name + ": the module has " + text_of(target.sizes()) + ", the file " +
                              text_of(source->second.sizes()));
    }
    given.erase(source);
  }

  // what is left, in file order
  for (const auto& [name, tensor] : weights) {
    if (given.count(own_key(module, name)) == 0) continue;
    const bool known = std::any_of(tolerated.begin(), tolerated.end(),
                                   [&, key = name](const auto& p) { return matches(key, p); });
    (known ? report.tolerated : report.unexpected).push_back(name);
  }
  return report;
}

std::string LoadReport::text() const {
  std::ostringstream out;
  list(out, "missing in the file", missing);
  list(out, "unexpected in the file", unexpected);
  list(out, "of another shape", shapes);
  list(out, "left over, as the model expects", tolerated);
  const std::string text = out.str();
  return text.empty() ? "all weights fit\n" : text;
}

StateDict read_state_dict(const std::string& path) {
  std::string head;
  {
    const InputFile file(path);
    head = file.read_text(std::min<uint64_t>(file.size(), 9), 0);
  }
  const bool zip = head.rfind("PK\x03\x04", 0) == 0;
  const bool pickle = head.rfind("\x80\x02\x8a\x0a", 0) == 0;
  if (zip || pickle) return read_torch_pickle(path).tensors;
  const bool safetensors = head.size() == 9 && head[8] == '{';
  TORCH_CHECK(safetensors, path,
              ": is neither a safetensors file nor a checkpoint of torch.save (or is damaged)");
  SafeTensors file = read_safetensors(path);
  const auto written = file.metadata.find(kChecksum);
  if (written != file.metadata.end()) {
    const std::string sum = checksum(file.tensors);
    TORCH_CHECK(sum == written->second, path, " is damaged: its content has the checksum ", sum,
                ", it was written with ", written->second);
  }
  return std::move(file.tensors);
}

std::string checksum(const StateDict& tensors, const std::string& text) {
  std::map<std::string, torch::Tensor> sorted(tensors.begin(), tensors.end());
  uLong sum = crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size());
  for (const auto& [name, tensor] : sorted) {
    const torch::Tensor dense = tensor.detach().to(torch::kCPU).contiguous();
    sum = crc32_z(sum, reinterpret_cast<const Bytef*>(name.data()), name.size());
    if (dense.nbytes() == 0) continue;  // zlib takes a null pointer for a new sum
    sum = crc32_z(sum, static_cast<const Bytef*>(dense.const_data_ptr()), dense.nbytes());
  }
  char hex[20];
  std::snprintf(hex, sizeof(hex), "%08lx", sum);
  return hex;
}

void write_weights(const std::string& path, const StateDict& weights,
                   std::map<std::string, std::string> metadata) {
  metadata[kChecksum] = checksum(weights);
  write_safetensors(path, weights, metadata);
}

}  // namespace serpentine
