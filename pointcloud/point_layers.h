// Layers that see one point at a time: linear maps with batch norm, channels last.
//
// As in PointMLP (Ma et al., arXiv 2202.07123) and Point Cloud Mamba. A pointwise convolution is a
// linear map; Conv1d modules hold the parameters under the references' names. C channels, last.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/conv.h>

#include "pointcloud/neighbourhood_cpu.h"

namespace serpentine {

/// relu gelu rrelu selu silu hardswish leakyrelu, the choices of `activation` options.
std::vector<std::string> point_activations();
torch::Tensor activate(const std::string& activation, const torch::Tensor& x, bool training);

/// x: [..., C] -> [..., C'] by a convolution of width 1.
torch::Tensor pointwise(torch::nn::Conv1d& conv, const torch::Tensor& x);

/// x: [..., C] -> [..., C]: statistics over all but the channels.
torch::Tensor batch_norm(torch::nn::BatchNorm1d& norm, const torch::Tensor& x);

/// Convolution, norm, activation. Keys `net.0`, `net.1`.
class PointLayerImpl : public torch::nn::Module {
 public:
  PointLayerImpl(int64_t in, int64_t out, bool bias, std::string activation = "relu");
  torch::Tensor forward(const torch::Tensor& x);  // [..., in] -> [..., out]

  /// The convolution with the norm of evaluation in it.
  cpu::FoldedMap folded() const;
  bool is_relu() const { return activation_ == "relu"; }

 private:
  std::string activation_;
  torch::nn::Conv1d conv_{nullptr};
  torch::nn::BatchNorm1d norm_{nullptr};
};
TORCH_MODULE(PointLayer);

struct PointResidualOptions {
  int64_t groups = 1;
  double expansion = 1;  // inner channels as a multiple
  bool bias = true;
  std::string activation = "relu";
};

/// act(x + net2(net1(x))). Keys `net1.{0,1}`, `net2.{0,1}`, with groups also `net2.{3,4}`.
class PointResidualImpl : public torch::nn::Module {
 public:
  PointResidualImpl(int64_t channels, PointResidualOptions options);
  torch::Tensor forward(const torch::Tensor& x);  // [..., C] -> [..., C]

  std::pair<cpu::FoldedMap, cpu::FoldedMap> folded() const;  // where it is_two_relus
  bool is_two_relus() const {
    return convs_.size() == 2 && options_.expansion == 1 && options_.activation == "relu";
  }

 private:
  PointResidualOptions options_;
  std::vector<torch::nn::Conv1d> convs_;
  std::vector<torch::nn::BatchNorm1d> norms_;
};
TORCH_MODULE(PointResidual);

/// `blocks` residual layers in a row; keys `operation.<i>.*`.
class PointResidualsImpl : public torch::nn::Module {
 public:
  PointResidualsImpl(int64_t channels, int64_t blocks, const PointResidualOptions& options);
  torch::Tensor forward(torch::Tensor x);

 private:
  std::vector<PointResidual> layers_;
};
TORCH_MODULE(PointResiduals);

struct PointHeadOptions {
  std::vector<int64_t> widths;  // of the hidden layers
  double dropout = 0.5;
  bool norm = true;     // batch norm; without it the hidden layers have biases
  bool linear = false;  // Linear modules (weights [out, in]) instead of convolutions
};

/// Hidden layers with batch norm, ReLU and dropout, then a linear map. Keys as openpoints' ClsHead
/// and SegHead: `head.<i>.0` and `head.<i>.1`, where dropouts count.
class PointHeadImpl : public torch::nn::Module {
 public:
  PointHeadImpl(int64_t in, int64_t classes, const PointHeadOptions& options);
  torch::Tensor forward(torch::Tensor x);  // [..., in] -> [..., classes]

 private:
  PointHeadOptions options_;
  std::vector<std::function<torch::Tensor(const torch::Tensor&)>> maps_;
  std::vector<torch::nn::BatchNorm1d> norms_;
};
TORCH_MODULE(PointHead);

}  // namespace serpentine
