// How each operator of a traced graph is written in ONNX.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <torch/csrc/jit/ir/ir.h>
#include <torch/types.h>

#include "core/export/onnx_graph.h"

namespace serpentine {

/// A node of the traced graph while it is written: its inputs by name, its constants by value.
class OnnxNode {
 public:
  OnnxNode(OnnxGraph& graph, std::map<const torch::jit::Value*, std::vector<std::string>>& names,
           torch::jit::Node* node)
      : out(graph), names_(names), node_(node) {}

  std::string kind() const { return node_->kind().toQualString(); }
  /// The ONNX name of a tensor input; constants become initialisers.
  std::string in(size_t index) const;
  bool none(size_t index) const;
  std::vector<std::string> list(size_t index) const;  // the names of a list of tensors
  int64_t integer(size_t index) const;
  double real(size_t index) const;
  bool flag(size_t index) const;
  std::vector<int64_t> integers(size_t index) const;
  std::string text(size_t index) const;
  std::vector<int64_t> shape(size_t index) const;           // of an input
  std::vector<int64_t> result_shape() const;                // of the output
  std::optional<torch::Tensor> tensor(size_t index) const;  // a constant input
  int64_t axis(size_t index, int64_t of_input = 0) const;   // counted from the front
  size_t inputs() const { return node_->inputs().size(); }
  void set(const std::string& name) const { names_[node_->output()] = {name}; }
  void set_list(const std::vector<std::string>& all) const { names_[node_->output()] = all; }

  OnnxGraph& out;

 private:
  torch::jit::Value* value(size_t index) const { return node_->input(index); }
  std::map<const torch::jit::Value*, std::vector<std::string>>& names_;
  torch::jit::Node* node_;
};

/// Writes the node, or returns false when its operator is not known.
bool lower_shapes(const OnnxNode& node);      // views, slices, joins, index reads
bool lower_arithmetic(const OnnxNode& node);  // element by element, reductions, products
bool lower_layers(const OnnxNode& node);      // convolutions, norms, activations, pools
bool lower_recurrence(const OnnxNode& node);  // serpentine::recurrence

}  // namespace serpentine
