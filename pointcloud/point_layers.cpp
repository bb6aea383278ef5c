#include "pointcloud/point_layers.h"

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr const char* kPointLayersWho = "point layers";
constexpr double kLeastSlope = 1.0 / 8, kMostSlope = 1.0 / 3;  // of rrelu, torch's defaults

torch::nn::Conv1d make_conv(int64_t in, int64_t out, bool bias, int64_t groups = 1) {
  SERPENTINE_CHECK(groups >= 1 && in % groups == 0 && out % groups == 0, kPointLayersWho,
                   "groups must divide the channels, got ", groups, " and ", in, " -> ", out);
  return torch::nn::Conv1d(torch::nn::Conv1dOptions(in, out, 1).groups(groups).bias(bias));
}

cpu::FoldedMap folded_map(const torch::nn::Conv1d& conv, const torch::nn::BatchNorm1d& norm) {
  const torch::Tensor scale = norm->weight / (norm->running_var + norm->options.eps()).sqrt();
  const torch::Tensor before =
      conv->bias.defined() ? conv->bias - norm->running_mean : -norm->running_mean;
  return {(conv->weight.squeeze(2) * scale.unsqueeze(1)).contiguous(), before * scale + norm->bias};
}

}  // namespace

std::vector<std::string> point_activations() {
  return {"relu", "gelu", "rrelu", "selu", "silu", "hardswish", "leakyrelu"};
}

torch::Tensor activate(const std::string& activation, const torch::Tensor& x, bool training) {
  if (activation == "gelu") return torch::gelu(x);
  if (activation == "rrelu") return torch::rrelu(x, kLeastSlope, kMostSlope, training);
  if (activation == "selu") return torch::selu(x);
  if (activation == "silu") return torch::silu(x);
  if (activation == "hardswish") return torch::hardswish(x);
  if (activation == "leakyrelu") return torch::leaky_relu(x);
  return torch::relu(x);
}

torch::Tensor pointwise(torch::nn::Conv1d& conv, const torch::Tensor& x) {
  if (conv->options.groups() == 1)
    return torch::nn::functional::linear(x, conv->weight.squeeze(2), conv->bias);
  const auto rows = x.flatten(0, -2).t().unsqueeze(0);  // [1, C, rows]
  auto shape = x.sizes().vec();
  shape.back() = conv->weight.size(0);
  return conv->forward(rows).squeeze(0).t().reshape(shape);
}

torch::Tensor batch_norm(torch::nn::BatchNorm1d& norm, const torch::Tensor& x) {
  return norm->forward(x.flatten(0, -2)).view(x.sizes());
}

PointLayerImpl::PointLayerImpl(int64_t in, int64_t out, bool bias, std::string activation)
    : activation_(std::move(activation)) {
  conv_ = make_conv(in, out, bias);
  norm_ = torch::nn::BatchNorm1d(out);
  torch::nn::ModuleList net;
  net->push_back(conv_);
  net->push_back(norm_);
  register_module("net", net);
}

torch::Tensor PointLayerImpl::forward(const torch::Tensor& x) {
  return activate(activation_, batch_norm(norm_, pointwise(conv_, x)), is_training());
}

cpu::FoldedMap PointLayerImpl::folded() const { return folded_map(conv_, norm_); }

std::pair<cpu::FoldedMap, cpu::FoldedMap> PointResidualImpl::folded() const {
  return {folded_map(convs_[0], norms_[0]), folded_map(convs_[1], norms_[1])};
}

PointResidualImpl::PointResidualImpl(int64_t channels, PointResidualOptions options)
    : options_(std::move(options)) {
  const auto inner = static_cast<int64_t>(static_cast<double>(channels) * options_.expansion);
  const auto add = [&](torch::nn::ModuleList& net, int64_t in, int64_t out, int64_t groups) {
    convs_.push_back(make_conv(in, out, options_.bias, groups));
    norms_.emplace_back(out);
    net->push_back(convs_.back());
    net->push_back(norms_.back());
  };
  torch::nn::ModuleList net1, net2;
  add(net1, channels, inner, options_.groups);
  add(net2, inner, channels, options_.groups);
  if (options_.groups > 1) {
    net2->push_back(torch::nn::ReLU());  // so that names count; the activation is ours
    add(net2, channels, channels, 1);
  }
  register_module("net1", net1);
  register_module("net2", net2);
}

torch::Tensor PointResidualImpl::forward(const torch::Tensor& x) {
  torch::Tensor y = x;
  for (size_t i = 0; i < convs_.size(); ++i) {
    if (i > 0) y = activate(options_.activation, y, is_training());
    y = batch_norm(norms_[i], pointwise(convs_[i], y));
  }
  return activate(options_.activation, y + x, is_training());
}

PointResidualsImpl::PointResidualsImpl(int64_t channels, int64_t blocks,
                                       const PointResidualOptions& options) {
  torch::nn::ModuleList operation;
  for (int64_t i = 0; i < blocks; ++i) {
    layers_.emplace_back(channels, options);
    operation->push_back(layers_.back());
  }
  register_module("operation", operation);
}

torch::Tensor PointResidualsImpl::forward(torch::Tensor x) {
  for (auto& layer : layers_) x = layer->forward(x);
  return x;
}

PointHeadImpl::PointHeadImpl(int64_t in, int64_t classes, const PointHeadOptions& options)
    : options_(options) {
  torch::nn::ModuleList head;
  const auto add = [&](int64_t out, bool last) {
    const bool bias = last || !options_.norm;
    torch::nn::ModuleList part;
    if (options_.linear) {
      torch::nn::Linear map(torch::nn::LinearOptions(in, out).bias(bias));
      part->push_back(map);
      maps_.emplace_back([map](const torch::Tensor& x) mutable { return map->forward(x); });
    } else {
      torch::nn::Conv1d map = make_conv(in, out, bias);
      part->push_back(map);
      maps_.emplace_back([map](const torch::Tensor& x) mutable { return pointwise(map, x); });
    }
    if (!last && options_.norm) {
      norms_.emplace_back(out);
      part->push_back(norms_.back());
    }
    head->push_back(part);
    if (!last && options_.dropout > 0) head->push_back(torch::nn::Dropout(options_.dropout));
    in = out;
  };
  for (const int64_t width : options_.widths) add(width, false);
  add(classes, true);
  register_module("head", head);
}

torch::Tensor PointHeadImpl::forward(torch::Tensor x) {
  for (size_t i = 0; i + 1 < maps_.size(); ++i) {
    x = maps_[i](x);
    if (options_.norm) x = batch_norm(norms_[i], x);
    x = torch::dropout(torch::relu(x), options_.dropout, is_training());
  }
  return maps_.back()(x);
}

}  // namespace serpentine
