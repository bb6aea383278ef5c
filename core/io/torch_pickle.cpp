#include "core/io/torch_pickle.h"

#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <map>
#include <unordered_map>
#include <utility>

#include "core/io/bytes.h"
#include "core/io/pickle.h"
#include "core/io/torch_storage.h"
#include "core/io/zip_reader.h"

namespace serpentine {
namespace {

using Kind = PickleValue::Kind;
using Pairs = std::vector<std::pair<PickleValue::Ref, PickleValue::Ref>>;

/// What training scripts call the state dict inside a checkpoint, most usual first.
constexpr std::array<const char*, 8> kWrappers = {
    "state_dict", "model", "model_state_dict", "base_model", "module", "net", "params", "ema"};

constexpr std::array<const char*, 7> kUnderstood = {"collections.OrderedDict",
                                                    "torch._utils._rebuild_tensor_v2",
                                                    "torch._utils._rebuild_tensor",
                                                    "torch._utils._rebuild_parameter",
                                                    "torch._utils._rebuild_parameter_with_state",
                                                    "torch.Size",
                                                    "torch.device"};

/// The keys and values of a dict or OrderedDict, or nullptr.
const Pairs* dictionary(const PickleValue& value) {
  const bool ordered = value.kind == Kind::kCall && value.text == "collections.OrderedDict";
  return ordered || value.kind == Kind::kDict ? &value.pairs : nullptr;
}

bool has_tensors(const Pairs& pairs) {
  return std::any_of(pairs.begin(), pairs.end(), [](const auto& pair) {
    return pair.first->kind == Kind::kText && TensorBuilder::is_tensor(*pair.second);
  });
}

/// The innermost dictionary of tensors, or nullptr.
const Pairs* find_state_dict(const PickleValue& value, int depth = 0) {
  const Pairs* pairs = dictionary(value);
  if (pairs == nullptr || depth > 3) return nullptr;
  if (has_tensors(*pairs)) return pairs;
  for (const char* wrapper : kWrappers) {
    for (const auto& [key, inner] : *pairs) {
      if (key->kind != Kind::kText || key->text != wrapper) continue;
      const Pairs* found = find_state_dict(*inner, depth + 1);
      if (found != nullptr) return found;
    }
  }
  return nullptr;
}

/// What a checkpoint holds instead of a state dict, in a few words.
std::string describe(const PickleValue& value) {
  if (value.kind == Kind::kCall) {
    return "an object of " + value.text.substr(0, 80) +
           " (save its state_dict() in Python to read it here)";
  }
  const Pairs* pairs = dictionary(value);
  if (pairs == nullptr) return "no dictionary";
  std::string text = "a dictionary with the keys";
  for (size_t i = 0; i < std::min<size_t>(pairs->size(), 8); ++i) {
    const PickleValue& key = *(*pairs)[i].first;
    text += " '" + (key.kind == Kind::kText ? key.text.substr(0, 40) : "?") + "'";
  }
  return pairs->empty() ? "an empty dictionary" : text;
}

void strip_prefix(StateDict& tensors) {
  const std::string prefix = "module.";
  const bool all = std::all_of(tensors.begin(), tensors.end(), [&](const auto& entry) {
    return entry.first.rfind(prefix, 0) == 0;
  });
  if (!all) return;
  for (auto& [name, tensor] : tensors) name.erase(0, prefix.size());
}

/// `alone`: a tensor by itself will do.
TorchCheckpoint extract(const Pickle& pickle, TensorBuilder builder, const std::string& path,
                        bool alone) {
  TorchCheckpoint result;
  if (alone && TensorBuilder::is_tensor(*pickle.root)) {
    result.tensors.emplace_back("", builder.build(*pickle.root, "the tensor"));
    return result;
  }
  for (const auto& name : pickle.called) {
    const bool known = std::find(kUnderstood.begin(), kUnderstood.end(), name) != kUnderstood.end();
    if (!known) result.skipped.push_back(name);
  }
  const Pairs* pairs = find_state_dict(*pickle.root);
  TORCH_CHECK(pairs != nullptr, path, ": holds no state dict but ", describe(*pickle.root));

  // as in Python, a repeated key keeps its first place and its last value
  std::unordered_map<std::string, const PickleValue*> last;
  std::vector<std::string> order;
  for (const auto& [key, value] : *pairs) {
    if (key->kind != Kind::kText || !TensorBuilder::is_tensor(*value)) continue;
    if (last.insert_or_assign(key->text, value).second) order.push_back(key->text);
  }
  for (const auto& name : order) {
    result.tensors.emplace_back(name, builder.build(*last[name], name));
  }
  strip_prefix(result.tensors);
  return result;
}

uint64_t memory_limit(uint64_t file_size) { return 16 * file_size + (uint64_t{64} << 20); }

TorchCheckpoint read_zip(const std::string& path, bool alone) {
  const ZipReader zip(path);
  const std::string member = "data.pkl";
  std::string prefix;
  bool found = false;
  for (const auto& name : zip.names()) {
    const size_t slash = name.rfind('/');
    if (name.substr(slash == std::string::npos ? 0 : slash + 1) != member) continue;
    prefix = name.substr(0, name.size() - member.size());
    found = true;
    break;
  }
  TORCH_CHECK(found, path, ": is a zip file without 'data.pkl', so not from torch.save");
  if (zip.has(prefix + "byteorder")) {
    TORCH_CHECK(zip.read(prefix + "byteorder") != "big", path, ": has big-endian numbers");
  }
  const Pickle pickle = parse_pickle(zip.read(prefix + member), path);
  const auto load = [&](const std::string& key) { return zip.read(prefix + "data/" + key); };
  return extract(pickle, TensorBuilder(path, load, memory_limit(zip.file_size())), path, alone);
}

// The format before torch 1.6: four pickles (magic number, version, machine, object), the list of
// the storages' keys, then each storage as an int64 count and its elements.
TorchCheckpoint read_legacy(const std::string& path, bool alone) {
  const InputFile file(path);
  const std::string bytes = file.read_all();
  std::string_view rest = bytes;
  const auto next = [&] {
    Pickle pickle = parse_pickle(rest, path);
    rest.remove_prefix(pickle.size);
    return pickle;
  };
  const Pickle magic = next();
  const std::string expected = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
  TORCH_CHECK(magic.root->kind == Kind::kLong && magic.root->text == expected, path,
              ": is a pickle, but not from torch.save");
  next();
  next();
  const Pickle object = next();
  const Pickle keys = next();
  TORCH_CHECK(keys.root->kind == Kind::kList, path, ": the list of storages is missing");

  // the element size of a storage stands only where a tensor uses it
  std::unordered_map<std::string, std::string> types;
  for (const auto& value : *object.values) {
    if (value.kind != Kind::kPersistent || value.items[0]->items.size() < 5) continue;
    const auto& id = value.items[0]->items;
    types[id[2]->text] = id[1]->text;
  }
  std::unordered_map<std::string, std::string_view> storages;
  for (const auto* key : keys.root->items) {
    TORCH_CHECK(rest.size() >= 8, path, ": ends before the storage '", key->text, "'");
    const auto count = load_little<int64_t>(rest.data());
    rest.remove_prefix(8);
    int64_t size = -1;
    for (const auto type :
         {torch::kFloat64, torch::kFloat32, torch::kFloat16, torch::kBFloat16, torch::kInt64,
          torch::kInt32, torch::kInt16, torch::kInt8, torch::kUInt8, torch::kBool}) {
      if (types[key->text] != "torch." + storage_class(type)) continue;
      if (!checked_bytes(std::array<int64_t, 1>{count}, c10::elementSize(type), size)) size = -1;
    }
    TORCH_CHECK(size >= 0 && static_cast<uint64_t>(size) <= rest.size(), path, ": the storage '",
                key->text, "' claims ", count, " elements, but ", rest.size(), " bytes follow");
    storages[key->text] = rest.substr(0, static_cast<size_t>(size));
    rest.remove_prefix(static_cast<size_t>(size));
  }
  const auto load = [&](const std::string& key) {
    const auto known = storages.find(key);
    TORCH_CHECK(known != storages.end(), path, ": the storage '", key, "' is missing");
    return std::string(known->second);
  };
  return extract(object, TensorBuilder(path, load, memory_limit(file.size())), path, alone);
}

TorchCheckpoint read(const std::string& path, bool alone) {
  const InputFile file(path);
  const std::string head = file.read_text(std::min<uint64_t>(file.size(), 4), 0);
  return head.rfind("PK", 0) == 0 ? read_zip(path, alone) : read_legacy(path, alone);
}

}  // namespace

TorchCheckpoint read_torch_pickle(const std::string& path) { return read(path, false); }

StateDict read_torch_tensors(const std::string& path) { return read(path, true).tensors; }

}  // namespace serpentine
