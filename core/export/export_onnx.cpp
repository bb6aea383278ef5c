#include "core/export/export_onnx.h"

#include <set>

#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/torch.h>

#include "core/check.h"
#include "core/export/onnx_lowering.h"

namespace serpentine {
namespace {

constexpr const char* kWho = "onnx";

namespace jit = torch::jit;

std::vector<int64_t> shape_of(const jit::Value* value) {
  const auto type = value->type()->cast<c10::TensorType>();
  const auto sizes = type ? type->sizes().concrete_sizes() : std::nullopt;
  SERPENTINE_CHECK(sizes.has_value(), kWho, "the sizes of '", value->debugName(),
                   "' are not known");
  return *sizes;
}

bool is_list(const std::string& kind) {
  return kind == "prim::ListConstruct" || kind == "prim::TupleConstruct";
}

}  // namespace

std::string OnnxNode::in(size_t index) const {
  const auto found = names_.find(value(index));
  if (found != names_.end()) return found->second.front();
  const auto held = jit::toIValue(value(index));
  SERPENTINE_CHECK(held.has_value(), kWho, "an input of ", kind(), " was not written before it");
  if (held->isTensor()) return out.constant(held->toTensor());
  SERPENTINE_CHECK(held->isScalar(), kWho, "an input of ", kind(), " is no tensor");
  return out.constant(held->toScalar().toDouble());
}

bool OnnxNode::none(size_t index) const {
  const auto held = jit::toIValue(value(index));
  return held.has_value() && held->isNone();
}

std::vector<std::string> OnnxNode::list(size_t index) const {
  const auto found = names_.find(value(index));
  if (found != names_.end()) return found->second;
  std::vector<std::string> all;
  const auto held = jit::toIValue(value(index));
  SERPENTINE_CHECK(held.has_value() && held->isTensorList(), kWho, "an input of ", kind(),
                   " is no list of tensors");
  for (const torch::Tensor& one : held->toTensorVector()) all.push_back(out.constant(one));
  return all;
}

namespace {

c10::IValue constant_of(const jit::Value* value, const std::string& kind) {
  auto held = jit::toIValue(value);
  SERPENTINE_CHECK(held.has_value(), kWho, "an option of ", kind, " depends on the input");
  return *held;
}

}  // namespace

int64_t OnnxNode::integer(size_t index) const {
  return constant_of(value(index), kind()).toScalar().toLong();
}
double OnnxNode::real(size_t index) const {
  return constant_of(value(index), kind()).toScalar().toDouble();
}
bool OnnxNode::flag(size_t index) const {
  return constant_of(value(index), kind()).toScalar().toBool();
}
std::vector<int64_t> OnnxNode::integers(size_t index) const {
  const auto held = constant_of(value(index), kind());
  return held.isInt() ? std::vector<int64_t>{held.toInt()} : held.toIntVector();
}
std::string OnnxNode::text(size_t index) const {
  return constant_of(value(index), kind()).toStringRef();
}
std::vector<int64_t> OnnxNode::shape(size_t index) const {
  if (const auto held = tensor(index)) return held->sizes().vec();
  return shape_of(value(index));
}
std::vector<int64_t> OnnxNode::result_shape() const { return shape_of(node_->output()); }
std::optional<torch::Tensor> OnnxNode::tensor(size_t index) const {
  const auto held = jit::toIValue(value(index));
  if (!held.has_value() || !held->isTensor()) return std::nullopt;
  return held->toTensor();
}
int64_t OnnxNode::axis(size_t index, int64_t of_input) const {
  const int64_t given = integer(index);
  return given < 0 ? given + static_cast<int64_t>(shape(static_cast<size_t>(of_input)).size())
                   : given;
}

namespace {

/// Nodes whose inputs are all known are run here and now (torch's pass of that name wants to know
/// every operator, and ours is not its own).
std::set<const jit::Node*> fold_constants(jit::Graph& graph) {
  std::set<const jit::Node*> folded;
  for (jit::Node* node : graph.nodes()) {
    const std::string kind = node->kind().toQualString();
    if (kind == "prim::Constant" || kind.rfind("serpentine::", 0) == 0) continue;
    // filled through a pointer, which the trace has not seen: its contents are not known
    if (kind.rfind("aten::empty", 0) == 0 || kind.rfind("aten::new_empty", 0) == 0) continue;
    const auto values = jit::runNodeIfInputsAreConstant(node);
    if (!values) continue;
    const jit::WithInsertPoint before(node);
    std::vector<jit::Value*> constants;
    for (const auto& value : *values) {
      const auto constant = jit::tryInsertConstant(graph, value);
      if (constant) constants.push_back(*constant);
    }
    if (constants.size() != node->outputs().size()) continue;
    for (size_t i = 0; i < constants.size(); ++i) node->output(i)->replaceAllUsesWith(constants[i]);
    folded.insert(node);
  }
  return folded;
}

/// The nodes that the output needs.
std::set<const jit::Node*> needed_nodes(jit::Graph& graph) {
  std::set<const jit::Node*> needed;
  std::vector<const jit::Node*> pending;
  for (const auto* output : graph.outputs()) pending.push_back(output->node());
  while (!pending.empty()) {
    const auto* node = pending.back();
    pending.pop_back();
    if (!needed.insert(node).second) continue;
    for (const auto* input : node->inputs()) pending.push_back(input->node());
  }
  return needed;
}

}  // namespace

OnnxExport export_onnx(const std::function<torch::Tensor(const torch::Tensor&)>& forward,
                       const torch::Tensor& example,
                       const std::map<std::string, std::string>& metadata) {
  const torch::NoGradGuard no_grad;
  const auto traced = jit::tracer::trace(
      {example}, [&](jit::Stack inputs) -> jit::Stack { return {forward(inputs[0].toTensor())}; },
      [](const torch::autograd::Variable&) { return std::string(); }, /*strict=*/true,
      /*force_outplace=*/true);
  auto graph = traced.first->graph;
  const auto folded = fold_constants(*graph);
  const auto needed = needed_nodes(*graph);

  OnnxGraph out("serpentine");
  std::map<const jit::Value*, std::vector<std::string>> names;
  out.input("input", example.sizes().vec());
  const auto inputs = graph->inputs();
  names[inputs.back()] = {"input"};
  for (jit::Node* node : graph->nodes()) {
    const std::string kind = node->kind().toQualString();
    if (kind == "prim::Constant" || folded.count(node) > 0 || needed.count(node) == 0) continue;
    if (is_list(kind)) {
      if (node->outputs().size() == 1 && jit::toIValue(node->output()).has_value()) continue;
      bool tensors = true;
      for (const auto* input : node->inputs())
        tensors = tensors && input->type()->isSubtypeOf(*c10::TensorType::get());
      if (!tensors) continue;
      std::vector<std::string> all;
      const OnnxNode reader(out, names, node);
      for (size_t i = 0; i < node->inputs().size(); ++i) all.push_back(reader.in(i));
      names[node->output()] = all;
    } else if (kind == "prim::ListUnpack" || kind == "prim::TupleUnpack") {
      const auto all = names.at(node->input());
      for (size_t i = 0; i < node->outputs().size(); ++i) names[node->output(i)] = {all.at(i)};
    } else {
      const OnnxNode one(out, names, node);
      const bool known =
          lower_shapes(one) || lower_arithmetic(one) || lower_layers(one) || lower_recurrence(one);
      SERPENTINE_CHECK(known, kWho, "the operator ", kind, " cannot be exported yet");
    }
  }
  const auto outputs = graph->outputs();
  SERPENTINE_CHECK(outputs.size() == 1 && names.count(outputs[0]) > 0, kWho,
                   "the output does not depend on the input");
  out.rename(names.at(outputs[0]).front(), "output");
  out.output("output", traced.second[0].toTensor().sizes().vec());
  return {out.model_bytes(metadata), out.operators()};
}

}  // namespace serpentine
