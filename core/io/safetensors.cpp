#include "core/io/safetensors.h"

#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <utility>

#include "core/io/atomic_file.h"
#include "core/io/bytes.h"

namespace serpentine {
namespace {

using nlohmann::json;

constexpr uint64_t kMostHeader = 100'000'000;  // bytes; the limit of the Python library

constexpr std::array<std::pair<const char*, torch::ScalarType>, 10> kSafetensorsTypes = {{
    {"F64", torch::kFloat64},
    {"F32", torch::kFloat32},
    {"F16", torch::kFloat16},
    {"BF16", torch::kBFloat16},
    {"I64", torch::kInt64},
    {"I32", torch::kInt32},
    {"I16", torch::kInt16},
    {"I8", torch::kInt8},
    {"U8", torch::kUInt8},
    {"BOOL", torch::kBool},
}};

/// One tensor of the header; `begin` and `end` count from the end of the header.
struct Entry {
  std::string name;
  torch::ScalarType type = torch::kFloat32;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;
};

/// Parses the header; refuses deep nesting and repeated names, which JSON parsers let pass.
json parse_header(const std::string& text, const std::string& path) {
  std::set<std::string> names;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    TORCH_CHECK(depth < 5, path, ": the header nests too deep");
    if (event == json::parse_event_t::key && depth == 1) {
      const auto name = parsed.get<std::string>();
      TORCH_CHECK(names.insert(name).second, path, ": the header names '", name, "' twice");
    }
    return true;
  };
  try {
    json header = json::parse(text, watch);
    TORCH_CHECK(header.is_object(), path, ": the header is not a JSON object");
    return header;
  } catch (const json::exception& error) {
    TORCH_CHECK(false, path, ": the header is not valid JSON (", error.what(), ")");
  }
}

Entry parse_entry(const std::string& name, const json& value, const std::string& path) {
  const auto who = [&] { return path + ": tensor '" + name + "': "; };
  const bool complete = value.is_object() && value.contains("dtype") && value.contains("shape") &&
                        value.contains("data_offsets");
  TORCH_CHECK(complete, who(), "dtype, shape and data_offsets are needed");
  Entry entry;
  entry.name = name;

  const json& dtype = value["dtype"];
  const auto* type =
      std::find_if(kSafetensorsTypes.begin(), kSafetensorsTypes.end(), [&](const auto& known) {
        return dtype.is_string() && dtype.get_ref<const std::string&>() == known.first;
      });
  TORCH_CHECK(type != kSafetensorsTypes.end(), who(), "the dtype ", dtype.dump(),
              " is not supported");
  entry.type = type->second;

  const json& shape = value["shape"];
  TORCH_CHECK(shape.is_array() && shape.size() <= 64, who(), "shape must be a list of extents");
  for (const auto& extent : shape) {
    TORCH_CHECK(extent.is_number_unsigned() && extent.get<uint64_t>() <= INT64_MAX, who(),
                "shape must hold non-negative integers, got ", extent.dump());
    entry.shape.push_back(extent.get<int64_t>());
  }

  const json& offsets = value["data_offsets"];
  const bool pair = offsets.is_array() && offsets.size() == 2 && offsets[0].is_number_unsigned() &&
                    offsets[1].is_number_unsigned();
  TORCH_CHECK(pair, who(), "data_offsets must be two non-negative integers");
  entry.begin = offsets[0].get<uint64_t>();
  entry.end = offsets[1].get<uint64_t>();
  int64_t bytes = 0;
  TORCH_CHECK(checked_bytes(entry.shape, c10::elementSize(entry.type), bytes), who(), "shape ",
              shape.dump(), " has too many elements");
  TORCH_CHECK(entry.begin <= entry.end && entry.end - entry.begin == static_cast<uint64_t>(bytes),
              who(), "shape ", shape.dump(), " of ", type->first, " needs ", bytes,
              " bytes, but data_offsets are ", offsets.dump());
  return entry;
}

/// The data must follow each other without gap or overlap and end where the file ends.
void check_layout(const std::vector<Entry>& entries, uint64_t data_size, const std::string& path) {
  uint64_t next = 0;
  for (const auto& entry : entries) {
    TORCH_CHECK(entry.begin == next, path, ": tensor '", entry.name, "' begins at byte ",
                entry.begin, " of the data, but the one before ends at ", next);
    TORCH_CHECK(entry.end <= data_size, path, ": tensor '", entry.name, "' ends at byte ",
                entry.end, " of the data, but the file has only ", data_size);
    next = entry.end;
  }
  TORCH_CHECK(next == data_size, path, ": the tensors end at byte ", next,
              " of the data, but the file has ", data_size);
}

std::map<std::string, std::string> parse_metadata(const json& value, const std::string& path) {
  std::map<std::string, std::string> metadata;
  TORCH_CHECK(value.is_object(), path, ": __metadata__ must map text to text");
  for (const auto& [key, text] : value.items()) {
    TORCH_CHECK(text.is_string(), path, ": __metadata__ must map text to text");
    metadata[key] = text.get<std::string>();
  }
  return metadata;
}

const char* type_name(torch::ScalarType type, const std::string& name) {
  for (const auto& [text, known] : kSafetensorsTypes) {
    if (known == type) return text;
  }
  TORCH_CHECK(false, "write_safetensors: '", name, "' has dtype ", type,
              ", which the format cannot hold");
}

}  // namespace

SafeTensors read_safetensors(const std::string& path) {
  const InputFile file(path);
  TORCH_CHECK(file.size() >= 8, path, ": a safetensors file has at least 8 bytes, got ",
              file.size());
  uint64_t length = 0;
  file.read(&length, 8, 0);
  TORCH_CHECK(length <= kMostHeader && length <= file.size() - 8, path, ": the header claims ",
              length, " bytes, but ", file.size() - 8, " follow");
  const json header = parse_header(file.read_text(length, 8), path);

  SafeTensors result;
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__")
      result.metadata = parse_metadata(value, path);
    else
      entries.push_back(parse_entry(name, value, path));
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_layout(entries, file.size() - 8 - length, path);
  for (const auto& entry : entries) {
    torch::Tensor tensor = torch::empty(entry.shape, entry.type);
    if (tensor.numel() > 0) {
      file.read(tensor.data_ptr(), entry.end - entry.begin, 8 + length + entry.begin);
    }
    if (entry.type == torch::kBool) tensor = tensor.view(torch::kUInt8).ne(0);  // any byte but 0
    result.tensors.emplace_back(entry.name, std::move(tensor));
  }
  return result;
}

void write_safetensors(const std::string& path, const StateDict& tensors,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::vector<torch::Tensor> rows;
  std::set<std::string> names = {"__metadata__"};
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    TORCH_CHECK(tensor.defined(), "write_safetensors: '", name, "' is an undefined tensor");
    TORCH_CHECK(names.insert(name).second, "write_safetensors: the name '", name,
                "' is given twice or reserved");
    rows.push_back(tensor.detach().cpu().contiguous());
    const uint64_t end = offset + rows.back().nbytes();
    header.emplace(name, nlohmann::ordered_json{{"dtype", type_name(tensor.scalar_type(), name)},
                                                {"shape", tensor.sizes().vec()},
                                                {"data_offsets", {offset, end}}});
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // readers that map the file want aligned data

  AtomicFile file(path);
  const uint64_t length = text.size();
  file.write(&length, sizeof length);
  file.write(text);
  for (const auto& row : rows) {
    if (row.numel() > 0) file.write(row.data_ptr(), row.nbytes());
  }
  file.commit();
}

}  // namespace serpentine
