#include "core/io/torch_storage.h"

#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "core/io/bytes.h"

namespace serpentine {
namespace {

using Kind = PickleValue::Kind;

constexpr std::array<std::pair<const char*, torch::ScalarType>, 10> kStorages = {{
    {"DoubleStorage", torch::kFloat64},
    {"FloatStorage", torch::kFloat32},
    {"HalfStorage", torch::kFloat16},
    {"BFloat16Storage", torch::kBFloat16},
    {"LongStorage", torch::kInt64},
    {"IntStorage", torch::kInt32},
    {"ShortStorage", torch::kInt16},
    {"CharStorage", torch::kInt8},
    {"ByteStorage", torch::kUInt8},
    {"BoolStorage", torch::kBool},
}};

bool is_call(const PickleValue& value, const char* name) {
  return value.kind == Kind::kCall && value.text == name;
}

/// The call that makes the plain tensor inside parameters and tensors with attributes.
const PickleValue* innermost(const PickleValue& value) {
  const PickleValue* inner = &value;
  for (int depth = 0; depth < 4 && inner->kind == Kind::kCall; ++depth) {
    if (is_call(*inner, "torch._utils._rebuild_tensor_v2") ||
        is_call(*inner, "torch._utils._rebuild_tensor")) {
      return inner->items.size() >= 4 ? inner : nullptr;
    }
    const bool parameter = is_call(*inner, "torch._utils._rebuild_parameter") ||
                           is_call(*inner, "torch._utils._rebuild_parameter_with_state");
    if (!parameter || inner->items.empty()) return nullptr;
    inner = inner->items[0];
  }
  return nullptr;
}

bool integers(const PickleValue& value, std::vector<int64_t>& numbers) {
  if (is_call(value, "torch.Size") && value.items.size() == 1) {
    return integers(*value.items[0], numbers);
  }
  if (value.kind != Kind::kTuple || value.items.size() > 64) return false;
  for (const auto* item : value.items) {
    if (item->kind != Kind::kInt || item->whole < 0) return false;
    numbers.push_back(item->whole);
  }
  return true;
}

/// One past the last element that a view touches; false beyond 63 bits.
bool extent(const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides, int64_t offset,
            int64_t& end) {
  end = offset;
  for (size_t i = 0; i < sizes.size(); ++i) {
    int64_t step = 0;
    if (sizes[i] == 0) {
      end = offset;
      return true;
    }
    if (__builtin_mul_overflow(sizes[i] - 1, strides[i], &step)) return false;
    if (__builtin_add_overflow(end, step, &end)) return false;
  }
  return !__builtin_add_overflow(end, int64_t{1}, &end);
}

}  // namespace

std::string storage_class(torch::ScalarType type) {
  for (const auto& [name, known] : kStorages) {
    if (known == type) return name;
  }
  return "";
}

TensorBuilder::TensorBuilder(std::string who, std::function<std::string(const std::string&)> load,
                             uint64_t limit)
    : who_(std::move(who)), load_(std::move(load)), left_(limit) {}

bool TensorBuilder::is_tensor(const PickleValue& value) { return innermost(value) != nullptr; }

TensorBuilder::Storage TensorBuilder::storage_of(const PickleValue& value,
                                                 const std::string& name) const {
  const bool persistent = value.kind == Kind::kPersistent && value.items[0]->kind == Kind::kTuple &&
                          value.items[0]->items.size() >= 5;
  TORCH_CHECK(persistent, who_, ": tensor '", name, "' has no storage");
  const auto& id = value.items[0]->items;
  const bool typed = id[0]->text == "storage" && id[1]->kind == Kind::kGlobal &&
                     id[2]->kind == Kind::kText && id[4]->kind == Kind::kInt;
  TORCH_CHECK(typed, who_, ": tensor '", name, "' has a storage of an unknown form");
  const auto* known = std::find_if(kStorages.begin(), kStorages.end(), [&](const auto& entry) {
    return id[1]->text == std::string("torch.") + entry.first;
  });
  TORCH_CHECK(known != kStorages.end(), who_, ": tensor '", name, "' has a ", id[1]->text,
              ", which is not supported");
  return {id[2]->text, known->second, id[4]->whole};
}

const torch::Tensor& TensorBuilder::bytes_of(const Storage& storage, const std::string& name) {
  auto known = loaded_.find(storage.key);
  if (known == loaded_.end()) {
    const std::string raw = load_(storage.key);
    torch::Tensor bytes = torch::empty({static_cast<int64_t>(raw.size())}, torch::kUInt8);
    if (!raw.empty()) std::memcpy(bytes.data_ptr(), raw.data(), raw.size());
    known = loaded_.emplace(storage.key, std::move(bytes)).first;
  }
  int64_t needed = 0;
  const bool fits =
      checked_bytes(std::array<int64_t, 1>{storage.size}, c10::elementSize(storage.type), needed);
  TORCH_CHECK(fits && needed <= known->second.numel(), who_, ": the storage of tensor '", name,
              "' claims ", storage.size, " elements, but has ", known->second.numel(), " bytes");
  return known->second;
}

torch::Tensor TensorBuilder::build(const PickleValue& value, const std::string& name) {
  const PickleValue& call = *innermost(value);
  const Storage storage = storage_of(*call.items[0], name);
  std::vector<int64_t> sizes, strides;
  const bool plain = call.items[1]->kind == Kind::kInt && call.items[1]->whole >= 0 &&
                     integers(*call.items[2], sizes) && integers(*call.items[3], strides) &&
                     sizes.size() == strides.size();
  TORCH_CHECK(plain, who_, ": tensor '", name, "' has no valid sizes and strides");
  const int64_t offset = call.items[1]->whole;
  int64_t end = 0, bytes = 0;
  const bool counted = extent(sizes, strides, offset, end) &&
                       checked_bytes(sizes, c10::elementSize(storage.type), bytes);
  TORCH_CHECK(counted && end <= storage.size, who_, ": tensor '", name, "' of shape ",
              at::IntArrayRef(sizes), " reaches beyond its storage of ", storage.size, " elements");
  TORCH_CHECK(static_cast<uint64_t>(bytes) <= left_, who_, ": tensor '", name, "' takes ", bytes,
              " bytes, far more than the file holds");
  left_ -= static_cast<uint64_t>(bytes);
  if (bytes == 0) return torch::empty(sizes, storage.type);

  // a byte of a bool may be anything in a damaged file
  const bool truth = storage.type == torch::kBool;
  const torch::Tensor raw =
      bytes_of(storage, name)
          .narrow(0, 0, storage.size * static_cast<int64_t>(c10::elementSize(storage.type)));
  const torch::Tensor flat = truth ? raw : raw.view(storage.type);
  torch::Tensor tensor =
      flat.as_strided(sizes, strides, offset).clone(at::MemoryFormat::Contiguous);
  return truth ? tensor.ne(0) : tensor;
}

}  // namespace serpentine
