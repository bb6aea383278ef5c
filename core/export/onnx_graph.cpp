#include "core/export/onnx_graph.h"

#include <cstring>

#include <torch/torch.h>

#include "core/io/bytes.h"

namespace serpentine {
namespace {

// protocol buffers: a field is its number and wire type (0 varint, 2 bytes, 5 four bytes), then the
// value

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80U);
  out += static_cast<char>(value);
}

void put_number(std::string& out, uint64_t field, int64_t value) {
  put_varint(out, field << 3);
  put_varint(out, static_cast<uint64_t>(value));
}

void put_bytes(std::string& out, uint64_t field, const std::string& value) {
  put_varint(out, field << 3 | 2U);
  put_varint(out, value.size());
  out += value;
}

void put_float(std::string& out, uint64_t field, double value) {
  put_varint(out, field << 3 | 5U);
  append_little(out, static_cast<float>(value));
}

/// TensorProto: dims 1, data_type 2, name 8, raw_data 9.
std::string tensor_bytes(const torch::Tensor& given, const std::string& name) {
  const bool boolean = given.scalar_type() == torch::kBool;
  const auto wanted = given.is_floating_point() ? torch::kFloat32
                      : boolean                 ? torch::kBool
                                                : torch::kInt64;
  const torch::Tensor value = given.to(torch::kCPU, wanted).contiguous();
  std::string out;
  for (const int64_t extent : value.sizes()) put_number(out, 1, extent);
  put_number(out, 2, wanted == torch::kFloat32 ? 1 : boolean ? 9 : 7);
  put_bytes(out, 8, name);
  put_bytes(out, 9,
            std::string(static_cast<const char*>(value.const_data_ptr()),
                        static_cast<size_t>(value.numel()) * value.element_size()));
  return out;
}

/// ValueInfoProto: name 1, type 2 { tensor_type 1 { elem_type 1, shape 2 { dim 1 { value 1 } } } }.
std::string value_info(const std::string& name, const std::vector<int64_t>& shape, int64_t type) {
  std::string dims;
  for (const int64_t extent : shape) {
    std::string dim;
    put_number(dim, 1, extent);
    put_bytes(dims, 1, dim);
  }
  std::string tensor, kind, out;
  put_number(tensor, 1, type);
  put_bytes(tensor, 2, dims);
  put_bytes(kind, 1, tensor);
  put_bytes(out, 1, name);
  put_bytes(out, 2, kind);
  return out;
}

/// AttributeProto: name 1, f 2, i 3, s 4, g 6, ints 8, type 20.
std::string attribute_bytes(const std::string& name, const OnnxAttribute& value) {
  enum Type : int64_t { kFloat = 1, kInt = 2, kText = 3, kGraph = 5, kInts = 7 };
  std::string out;
  put_bytes(out, 1, name);
  int64_t type = kInt;
  if (const auto* number = std::get_if<int64_t>(&value)) {
    put_number(out, 3, *number);
  } else if (const auto* real = std::get_if<double>(&value)) {
    put_float(out, 2, *real);
    type = kFloat;
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    put_bytes(out, 4, *text);
    type = kText;
  } else if (const auto* list = std::get_if<std::vector<int64_t>>(&value)) {
    for (const int64_t item : *list) put_number(out, 8, item);
    type = kInts;
  } else {
    put_bytes(out, 6, std::get<const OnnxGraph*>(value)->graph_bytes());
    type = kGraph;
  }
  put_number(out, 20, type);
  return out;
}

}  // namespace

void OnnxGraph::input(const std::string& name, const std::vector<int64_t>& shape, int64_t type) {
  put_bytes(inputs_, 11, value_info(name, shape, type));
}

void OnnxGraph::output(const std::string& name, const std::vector<int64_t>& shape, int64_t type) {
  put_bytes(outputs_, 12, value_info(name, shape, type));
}

std::string OnnxGraph::constant(const torch::Tensor& value, const std::string& name) {
  std::string content = tensor_bytes(value, "");
  if (name.empty()) {
    const auto found = known_.find(content);
    if (found != known_.end()) return found->second;
  }
  const std::string chosen = name.empty() ? prefix_ + "c" + std::to_string(next_++) : name;
  put_bytes(initializers_, 5, tensor_bytes(value, chosen));
  known_.emplace(std::move(content), chosen);
  return chosen;
}

std::string OnnxGraph::constant(const std::vector<int64_t>& value) {
  return constant(torch::tensor(value, torch::kInt64));
}

std::string OnnxGraph::constant(double value) {
  return constant(torch::scalar_tensor(value, torch::kFloat32));
}

std::vector<std::string> OnnxGraph::add_several(const std::string& operation,
                                                const std::vector<std::string>& inputs,
                                                size_t outputs, const OnnxAttributes& attributes) {
  // NodeProto: input 1, output 2, name 3, op_type 4, attribute 5
  std::string node;
  std::vector<std::string> names;
  for (const auto& input : inputs) put_bytes(node, 1, input);
  for (size_t i = 0; i < outputs; ++i) {
    names.push_back(prefix_ + "v" + std::to_string(next_++));
    put_bytes(node, 2, names.back());
  }
  put_bytes(node, 3, operation + "_" + names.front());
  put_bytes(node, 4, operation);
  for (const auto& [name, value] : attributes) put_bytes(node, 5, attribute_bytes(name, value));
  put_bytes(nodes_, 1, node);
  ++counts_[operation];
  return names;
}

std::string OnnxGraph::add(const std::string& operation, const std::vector<std::string>& inputs,
                           const OnnxAttributes& attributes) {
  return add_several(operation, inputs, 1, attributes).front();
}

void OnnxGraph::rename(const std::string& from, const std::string& to) {
  std::string node;
  put_bytes(node, 1, from);
  put_bytes(node, 2, to);
  put_bytes(node, 3, "name_" + to);
  put_bytes(node, 4, "Identity");
  put_bytes(nodes_, 1, node);
}

std::string OnnxGraph::graph_bytes() const {
  std::string out = nodes_;
  put_bytes(out, 2, name_);
  return out + initializers_ + inputs_ + outputs_;
}

std::string OnnxGraph::model_bytes(const std::map<std::string, std::string>& metadata) const {
  // ModelProto: ir_version 1, producer_name 2, graph 7, opset_import 8, metadata_props 14
  std::string out, opset;
  put_number(out, 1, 8);
  put_bytes(out, 2, "serpentine");
  put_bytes(out, 7, graph_bytes());
  put_bytes(opset, 1, "");
  put_number(opset, 2, 17);
  put_bytes(out, 8, opset);
  for (const auto& [key, value] : metadata) {
    std::string entry;
    put_bytes(entry, 1, key);
    put_bytes(entry, 2, value);
    put_bytes(out, 14, entry);
  }
  return out;
}

}  // namespace serpentine
