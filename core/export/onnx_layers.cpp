// Convolutions, norms, pools, and the recurrence of the selective scan.
#include <torch/torch.h>

#include "core/check.h"
#include "core/export/onnx_lowering.h"

namespace serpentine {
namespace {

std::vector<int64_t> twice(std::vector<int64_t> pads, size_t axes) {
  if (pads.size() == 1) pads.resize(axes, pads[0]);
  const auto before = pads;
  pads.insert(pads.end(), before.begin(), before.end());
  return pads;
}

std::vector<int64_t> wide(std::vector<int64_t> values, size_t axes) {
  if (values.size() == 1) values.resize(axes, values[0]);
  return values;
}

/// aten::_convolution and aten::convolution(x, weight, bias, stride, padding, dilation, transposed,
/// output_padding, groups); aten::conv1d to conv3d(x, weight, bias, stride, padding, dilation,
/// groups).
void convolution(const OnnxNode& node) {
  const std::string kind = node.kind();
  const bool general = kind == "aten::_convolution" || kind == "aten::convolution";
  const auto weight = node.shape(1);
  const size_t axes = weight.size() - 2;
  SERPENTINE_CHECK(!general || !node.flag(6), "onnx", "transposed convolutions are not exported");
  std::vector<std::string> inputs = {node.in(0), node.in(1)};
  if (!node.none(2)) inputs.push_back(node.in(2));
  node.set(
      node.out.add("Conv", inputs,
                   {{"strides", wide(node.integers(3), axes)},
                    {"pads", twice(node.integers(4), axes)},
                    {"dilations", wide(node.integers(5), axes)},
                    {"group", node.integer(general ? 8 : 6)},
                    {"kernel_shape", std::vector<int64_t>(weight.begin() + 2, weight.end())}}));
}

void layer_norm(const OnnxNode& node) {
  const auto axes = static_cast<int64_t>(node.integers(1).size());
  const auto shape = node.integers(1);
  std::vector<std::string> inputs = {
      node.in(0), node.none(2) ? node.out.constant(torch::ones(shape)) : node.in(2)};
  if (!node.none(3)) inputs.push_back(node.in(3));
  node.set(
      node.out.add("LayerNormalization", inputs, {{"axis", -axes}, {"epsilon", node.real(4)}}));
}

void batch_norm(const OnnxNode& node) {
  const auto channels = std::vector<int64_t>{node.shape(0)[1]};
  const std::string weight = node.none(1) ? node.out.constant(torch::ones(channels)) : node.in(1);
  const std::string bias = node.none(2) ? node.out.constant(torch::zeros(channels)) : node.in(2);
  node.set(node.out.add("BatchNormalization", {node.in(0), weight, bias, node.in(3), node.in(4)},
                        {{"epsilon", node.real(7)}}));
}

/// max_pool2d(x, kernel, stride, padding, dilation, ceil), avg_pool2d(x, kernel, stride, padding,
/// ceil, count_include_pad, divisor).
void pool(const OnnxNode& node) {
  const bool largest = node.kind() == "aten::max_pool2d";
  const auto kernel = wide(node.integers(1), 2);
  const auto stride = node.integers(2).empty() ? kernel : wide(node.integers(2), 2);
  const int64_t ceil = node.flag(largest ? 5 : 4) ? 1 : 0;
  OnnxAttributes attributes = {{"kernel_shape", kernel},
                               {"strides", stride},
                               {"pads", twice(node.integers(3), 2)},
                               {"ceil_mode", ceil}};
  if (!largest) attributes.emplace_back("count_include_pad", int64_t{node.flag(5) ? 1 : 0});
  node.set(node.out.add(largest ? "MaxPool" : "AveragePool", {node.in(0)}, attributes));
}

void adaptive_pool(const OnnxNode& node) {
  for (const int64_t side : node.integers(1))
    SERPENTINE_CHECK(side == 1, "onnx", "adaptive pooling is exported to one pixel only");
  node.set(node.out.add("GlobalAveragePool", {node.in(0)}));
}

}  // namespace

bool lower_layers(const OnnxNode& node) {
  const std::string kind = node.kind();
  if (kind == "aten::_convolution" || kind == "aten::convolution" || kind == "aten::conv1d" ||
      kind == "aten::conv2d" || kind == "aten::conv3d") {
    convolution(node);
  } else if (kind == "aten::layer_norm") {
    layer_norm(node);
  } else if (kind == "aten::batch_norm") {
    batch_norm(node);
  } else if (kind == "aten::max_pool2d" || kind == "aten::avg_pool2d") {
    pool(node);
  } else if (kind == "aten::adaptive_avg_pool2d") {
    adaptive_pool(node);
  } else {
    return false;
  }
  return true;
}

bool lower_recurrence(const OnnxNode& node) {
  if (node.kind() != "serpentine::recurrence") return false;
  const auto shape = node.shape(0), with_states = node.shape(2);  // [L, B, S, D], [L, B, S, N]
  const std::vector<int64_t> row = {shape[1], shape[2], shape[3]};
  const std::vector<int64_t> narrow = {shape[1], shape[2], with_states[3]};
  const std::vector<int64_t> state = {shape[1], shape[2], shape[3], with_states[3]};
  // names of a body must differ from those around it
  const std::string prefix = node.out.constant(torch::zeros({1})) + "_" + node.in(0) + "_";
  OnnxGraph body("step", prefix);
  body.input(prefix + "h", state);
  for (const char* name : {"delta", "u"}) body.input(prefix + name, row);
  for (const char* name : {"b", "c"}) body.input(prefix + name, narrow);
  const std::string last = body.constant(std::vector<int64_t>{-1}),
                    before = body.constant(std::vector<int64_t>{-2});
  const std::string step = body.add("Unsqueeze", {prefix + "delta", last});
  const std::string decay = body.add("Exp", {body.add("Mul", {step, node.in(4)})});
  const std::string input =
      body.add("Unsqueeze", {body.add("Mul", {prefix + "delta", prefix + "u"}), last});
  const std::string added = body.add("Mul", {input, body.add("Unsqueeze", {prefix + "b", before})});
  const std::string h = body.add("Add", {body.add("Mul", {decay, prefix + "h"}), added});
  const std::string seen = body.add("Mul", {h, body.add("Unsqueeze", {prefix + "c", before})});
  const std::string y = body.add("ReduceSum", {seen, last}, {{"keepdims", int64_t{0}}});
  body.rename(h, prefix + "h_next");
  body.rename(y, prefix + "y");
  body.output(prefix + "h_next", state);
  body.output(prefix + "y", row);
  const std::string zero = node.out.constant(torch::zeros(state));
  const auto results =
      node.out.add_several("Scan", {zero, node.in(0), node.in(1), node.in(2), node.in(3)}, 2,
                           {{"body", &body}, {"num_scan_inputs", int64_t{4}}});
  node.set(results[1]);
  return true;
}

}  // namespace serpentine
