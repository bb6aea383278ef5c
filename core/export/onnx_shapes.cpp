// Operators that move values: ONNX gets the sizes that the trace saw.
#include <algorithm>
#include <functional>
#include <limits>

#include <torch/torch.h>

#include "core/export/onnx_lowering.h"

namespace serpentine {
namespace {

std::string reshaped(const OnnxNode& node, const std::string& value) {
  return node.out.add("Reshape", {value, node.out.constant(node.result_shape())});
}

std::string sliced(const OnnxNode& node, int64_t axis, int64_t begin, int64_t end,
                   int64_t step = 1) {
  return node.out.add("Slice", {node.in(0), node.out.constant(std::vector<int64_t>{begin}),
                                node.out.constant(std::vector<int64_t>{end}),
                                node.out.constant(std::vector<int64_t>{axis}),
                                node.out.constant(std::vector<int64_t>{step})});
}

std::vector<int64_t> axes_of(const OnnxNode& node) {
  auto axes = node.integers(1);
  const auto rank = static_cast<int64_t>(node.shape(0).size());
  for (int64_t& axis : axes) axis = axis < 0 ? axis + rank : axis;
  return axes;
}

void transpose(const OnnxNode& node) {
  const auto rank = static_cast<int64_t>(node.shape(0).size());
  std::vector<int64_t> axes;
  if (node.kind() == "aten::permute") {
    axes = axes_of(node);
  } else {
    for (int64_t i = 0; i < rank; ++i) axes.push_back(i);
    const bool t = node.kind() == "aten::t" || node.kind() == "aten::numpy_T";
    const int64_t one = t ? 0 : node.axis(1), other = t ? rank - 1 : node.axis(2);
    if (rank > 1) std::swap(axes[static_cast<size_t>(one)], axes[static_cast<size_t>(other)]);
  }
  node.set(node.out.add("Transpose", {node.in(0)}, {{"perm", axes}}));
}

void slice(const OnnxNode& node) {
  const int64_t axis = node.axis(1), extent = node.shape(0)[static_cast<size_t>(axis)];
  int64_t begin = 0, end = extent, step = 1;
  if (node.kind() == "aten::select") {
    begin = node.integer(2);
    if (begin < 0) begin += extent;
    end = begin + 1;
  } else if (node.kind() == "aten::narrow") {
    begin = node.integer(2);
    end = begin + node.integer(3);
  } else {
    begin = node.none(2) ? 0 : node.integer(2);
    end = node.none(3) ? extent : std::min(node.integer(3), extent);
    step = node.integer(4);
  }
  const std::string part = sliced(node, axis, begin, end, step);
  node.set(node.kind() == "aten::select" ? reshaped(node, part) : part);
}

void flip(const OnnxNode& node) {
  std::string value = node.in(0);
  const auto axes = axes_of(node);
  const auto count = axes.size();
  node.set(node.out.add(
      "Slice",
      {value, node.out.constant(std::vector<int64_t>(count, -1)),
       node.out.constant(std::vector<int64_t>(count, std::numeric_limits<int64_t>::min() + 1)),
       node.out.constant(axes), node.out.constant(std::vector<int64_t>(count, -1))}));
}

/// split, split_with_sizes, chunk: a list of slices.
void split(const OnnxNode& node) {
  const int64_t axis = node.axis(2), extent = node.shape(0)[static_cast<size_t>(axis)];
  std::vector<int64_t> sizes;
  if (node.kind() == "aten::split_with_sizes") {
    sizes = node.integers(1);
  } else {
    const int64_t given = node.integer(1);
    const int64_t each = node.kind() == "aten::chunk" ? (extent + given - 1) / given : given;
    for (int64_t begin = 0; begin < extent; begin += each)
      sizes.push_back(std::min(each, extent - begin));
  }
  std::vector<std::string> parts;
  int64_t begin = 0;
  for (const int64_t size : sizes) {
    parts.push_back(sliced(node, axis, begin, begin + size));
    begin += size;
  }
  node.set_list(parts);
}

void stack(const OnnxNode& node) {
  const auto rank = static_cast<int64_t>(node.result_shape().size());
  const int64_t given = node.integer(1), axis = given < 0 ? given + rank : given;
  std::vector<std::string> parts;
  for (const auto& part : node.list(0))
    parts.push_back(
        node.out.add("Unsqueeze", {part, node.out.constant(std::vector<int64_t>{axis})}));
  node.set(node.out.add("Concat", parts, {{"axis", axis}}));
}

void concatenate(const OnnxNode& node) {
  const auto rank = static_cast<int64_t>(node.result_shape().size());
  const int64_t given = node.integer(1);
  node.set(node.out.add("Concat", node.list(0), {{"axis", given < 0 ? given + rank : given}}));
}

void pad(const OnnxNode& node) {
  const auto given = node.integers(1);  // from the last axis on, before and after
  const size_t rank = node.shape(0).size();
  std::vector<int64_t> pads(2 * rank, 0);
  for (size_t i = 0; i < given.size() / 2; ++i) {
    pads[rank - 1 - i] = given[2 * i];
    pads[2 * rank - 1 - i] = given[2 * i + 1];
  }
  const bool pads_by_mode = node.kind() == "aten::pad";
  const size_t value = pads_by_mode ? 3 : 2;
  const double fill = node.inputs() > value && !node.none(value) ? node.real(value) : 0;
  node.set(node.out.add("Pad", {node.in(0), node.out.constant(pads), node.out.constant(fill)}));
}

}  // namespace

bool lower_shapes(const OnnxNode& node) {
  static const std::map<std::string, std::function<void(const OnnxNode&)>> kKnown = [] {
    const auto reshape = [](const OnnxNode& n) { n.set(reshaped(n, n.in(0))); };
    const auto same = [](const OnnxNode& n) { n.set(n.in(0)); };
    std::map<std::string, std::function<void(const OnnxNode&)>> known;
    for (const char* name : {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze",
                             "_unsafe_view", "_reshape_alias", "view_as", "reshape_as"})
      known[name] = reshape;
    for (const char* name :
         {"contiguous", "clone", "detach", "dropout", "to", "type_as", "alias", "lift_fresh"})
      known[name] = same;
    for (const char* name : {"permute", "transpose", "t", "numpy_T"}) known[name] = transpose;
    for (const char* name : {"slice", "select", "narrow"}) known[name] = slice;
    for (const char* name : {"split", "split_with_sizes", "chunk"}) known[name] = split;
    for (const char* name : {"expand", "expand_as"}) {
      known[name] = [](const OnnxNode& n) {
        n.set(n.out.add("Expand", {n.in(0), n.out.constant(n.result_shape())}));
      };
    }
    known["cat"] = concatenate;
    known["stack"] = stack;
    known["flip"] = flip;
    known["constant_pad_nd"] = known["pad"] = pad;
    known["repeat"] = [](const OnnxNode& n) {
      n.set(n.out.add("Tile", {n.in(0), n.out.constant(n.integers(1))}));
    };
    known["index_select"] = [](const OnnxNode& n) {
      n.set(n.out.add("Gather", {n.in(0), n.in(2)}, {{"axis", n.axis(1)}}));
    };
    known["gather"] = [](const OnnxNode& n) {
      n.set(n.out.add("GatherElements", {n.in(0), n.in(2)}, {{"axis", n.axis(1)}}));
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
