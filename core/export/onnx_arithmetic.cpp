// Operators on values: element by element, reductions, products.
#include <functional>

#include <torch/torch.h>

#include "core/export/onnx_lowering.h"

namespace serpentine {
namespace {

using Lower = std::function<void(const OnnxNode&)>;

/// The second operand of add and sub times its factor.
std::string scaled(const OnnxNode& node, size_t operand, size_t factor) {
  const std::string value = node.in(operand);
  if (node.inputs() <= factor || node.real(factor) == 1) return value;
  return node.out.add("Mul", {value, node.out.constant(node.real(factor))});
}

Lower plain(const char* operation) {
  return [operation](const OnnxNode& n) { n.set(n.out.add(operation, {n.in(0)})); };
}

Lower pair(const char* operation) {
  return [operation](const OnnxNode& n) { n.set(n.out.add(operation, {n.in(0), n.in(1)})); };
}

/// mean, amax: axes are an attribute in opset 17; sum takes them as an input.
void reduce(const OnnxNode& node, const char* operation, bool axes_are_input) {
  const bool whole = node.inputs() < 3 || node.none(1) || node.integers(1).empty();
  std::vector<int64_t> axes;
  if (!whole) axes = node.integers(1);
  const int64_t keep = !whole && node.flag(2) ? 1 : 0;
  std::vector<std::string> inputs = {node.in(0)};
  OnnxAttributes attributes = {{"keepdims", keep}};
  if (!whole && axes_are_input) inputs.push_back(node.out.constant(axes));
  if (!whole && !axes_are_input) attributes.emplace_back("axes", axes);
  node.set(node.out.add(operation, inputs, attributes));
}

void add_matrix_product(const OnnxNode& node) {  // addmm, baddbmm: in(0) + in(1) x in(2)
  const std::string product = node.out.add("MatMul", {node.in(1), node.in(2)});
  node.set(node.out.add("Add", {node.in(0), product}));
}

void linear(const OnnxNode& node) {
  const auto weight = node.tensor(1);
  const std::string turned =
      weight ? node.out.constant(weight->t().contiguous())
             : node.out.add("Transpose", {node.in(1)}, {{"perm", std::vector<int64_t>{1, 0}}});
  std::string value = node.out.add("MatMul", {node.in(0), turned});
  if (!node.none(2)) value = node.out.add("Add", {value, node.in(2)});
  node.set(value);
}

std::string times(const OnnxNode& node, const std::string& value, double factor) {
  return node.out.add("Mul", {value, node.out.constant(factor)});
}

}  // namespace

bool lower_arithmetic(const OnnxNode& node) {
  static const std::map<std::string, Lower> kKnown = [] {
    std::map<std::string, Lower> known;
    known["exp"] = plain("Exp");
    known["log"] = plain("Log");
    known["neg"] = plain("Neg");
    known["sqrt"] = plain("Sqrt");
    known["abs"] = plain("Abs");
    known["erf"] = plain("Erf");
    known["mul"] = pair("Mul");
    known["div"] = pair("Div");
    known["pow"] = pair("Pow");
    known["matmul"] = known["mm"] = known["bmm"] = pair("MatMul");
    known["maximum"] = pair("Max");
    known["minimum"] = pair("Min");
    known["addmm"] = known["baddbmm"] = add_matrix_product;
    known["linear"] = linear;
    known["add"] = [](const OnnxNode& n) { n.set(n.out.add("Add", {n.in(0), scaled(n, 1, 2)})); };
    known["sub"] = [](const OnnxNode& n) { n.set(n.out.add("Sub", {n.in(0), scaled(n, 1, 2)})); };
    known["rsub"] = [](const OnnxNode& n) { n.set(n.out.add("Sub", {n.in(1), n.in(0)})); };
    known["square"] = [](const OnnxNode& n) { n.set(n.out.add("Mul", {n.in(0), n.in(0)})); };
    known["rsqrt"] = [](const OnnxNode& n) {
      n.set(n.out.add("Reciprocal", {n.out.add("Sqrt", {n.in(0)})}));
    };
    known["mean"] = [](const OnnxNode& n) { reduce(n, "ReduceMean", false); };
    known["amax"] = [](const OnnxNode& n) { reduce(n, "ReduceMax", false); };
    known["sum"] = [](const OnnxNode& n) { reduce(n, "ReduceSum", true); };
    known["masked_fill"] = [](const OnnxNode& n) {
      n.set(n.out.add("Where", {n.in(1), n.in(2), n.in(0)}));
    };
    known["where"] = [](const OnnxNode& n) {
      n.set(n.out.add("Where", {n.in(0), n.in(1), n.in(2)}));
    };
    known["einsum"] = [](const OnnxNode& n) {
      n.set(n.out.add("Einsum", n.list(1), {{"equation", n.text(0)}}));
    };
    known["clamp_min"] = [](const OnnxNode& n) {
      n.set(n.out.add("Max", {n.in(0), n.out.constant(n.real(1))}));
    };
    known["relu"] = plain("Relu");
    known["sigmoid"] = plain("Sigmoid");
    known["tanh"] = plain("Tanh");
    known["silu"] = [](const OnnxNode& n) {
      n.set(n.out.add("Mul", {n.in(0), n.out.add("Sigmoid", {n.in(0)})}));
    };
    known["softplus"] = plain("Softplus");  // of beta 1, the only one in use
    known["softmax"] = [](const OnnxNode& n) {
      n.set(n.out.add("Softmax", {n.in(0)}, {{"axis", n.axis(1)}}));
    };
    known["gelu"] = [](const OnnxNode& n) {
      const bool tanh = n.inputs() > 1 && n.text(1) == "tanh";
      const std::string x = n.in(0);
      std::string inner;
      if (tanh) {
        const std::string cube = n.out.add("Mul", {x, n.out.add("Mul", {x, x})});
        const std::string sum = n.out.add("Add", {x, times(n, cube, 0.044715)});
        inner = n.out.add("Tanh", {times(n, sum, 0.7978845608028654)});
      } else {
        inner = n.out.add("Erf", {times(n, x, 0.7071067811865476)});
      }
      const std::string one = n.out.add("Add", {inner, n.out.constant(1.0)});
      n.set(times(n, n.out.add("Mul", {x, one}), 0.5));
    };
    return known;
  }();
  const std::string kind = node.kind();
  const auto found = kind.rfind("aten::", 0) == 0 ? kKnown.find(kind.substr(6)) : kKnown.end();
  if (found == kKnown.end()) return false;
  found->second(node);
  return true;
}

}  // namespace serpentine
