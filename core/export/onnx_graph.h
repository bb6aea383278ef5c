// An ONNX graph under construction, and its bytes. Needs no protobuf: the few messages of
// onnx.proto (onnx/onnx, IR version 8, opset 17) are encoded here.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <torch/types.h>

namespace serpentine {

class OnnxGraph;

/// An attribute: integer, float, text, integers, or a graph (of Scan).
using OnnxAttribute =
    std::variant<int64_t, double, std::string, std::vector<int64_t>, const OnnxGraph*>;
using OnnxAttributes = std::vector<std::pair<std::string, OnnxAttribute>>;

/// Nodes must be added in the sequence in which they run.
class OnnxGraph {
 public:
  explicit OnnxGraph(std::string name, std::string prefix = "")
      : name_(std::move(name)), prefix_(std::move(prefix)) {}

  /// float32 unless `type` says otherwise (7: int64, 9: bool). Extents may be any.
  void input(const std::string& name, const std::vector<int64_t>& shape, int64_t type = 1);
  void output(const std::string& name, const std::vector<int64_t>& shape, int64_t type = 1);

  /// A constant, float32 (float64 is narrowed), int64 (other integers are widened) or bool; named
  /// after its content when `name` is empty.
  std::string constant(const torch::Tensor& value, const std::string& name = "");
  std::string constant(const std::vector<int64_t>& value);
  std::string constant(double value);  // a scalar

  /// Adds a node with one output and returns its name.
  std::string add(const std::string& operation, const std::vector<std::string>& inputs,
                  const OnnxAttributes& attributes = {});
  std::vector<std::string> add_several(const std::string& operation,
                                       const std::vector<std::string>& inputs, size_t outputs,
                                       const OnnxAttributes& attributes = {});
  /// The same value under another name.
  void rename(const std::string& from, const std::string& to);

  /// How often each operator occurs.
  const std::map<std::string, int64_t>& operators() const { return counts_; }

  std::string graph_bytes() const;
  std::string model_bytes(const std::map<std::string, std::string>& metadata = {}) const;

 private:
  std::string name_, prefix_;
  std::string nodes_, initializers_, inputs_, outputs_;  // encoded
  std::map<std::string, std::string> known_;             // constants by content
  std::map<std::string, int64_t> counts_;
  int64_t next_ = 0;
};

}  // namespace serpentine
