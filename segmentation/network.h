// What networks of this folder share: several output scales, options of a U, blocks of it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/config.h"
#include "core/io/state_dict.h"
#include "core/train/task.h"
#include "segmentation/layers.h"

namespace serpentine {

/// A model that can also give its coarser outputs, for deep supervision.
class ScaledModel : public Model {
 public:
  /// [B, K, ...] of the input's size first, then of coarser ones.
  virtual std::vector<torch::Tensor> scales(const Batch& batch) = 0;
  /// What each of `count` outputs weighs in the loss: halved at each coarser one, the coarsest of
  /// several has none (as nnU-Net trains).
  virtual std::vector<double> scale_weights(size_t count) const;
};

/// A U: stages of an encoder, each with a stride, and of a decoder.
struct UOptions {
  int64_t dims = 2, in_channels = 1, classes = 2;
  std::vector<int64_t> features = {32, 64, 128, 256, 320};
  std::vector<std::string> kernels, strides;
  std::vector<int64_t> convs, decoder_convs;
  bool conv_bias = true, deep_supervision = true;
  void fields(Fields& f);

  int64_t stages() const { return static_cast<int64_t>(features.size()); }
};

/// The same, checked and complete: one entry a stage.
struct UPlan {
  int64_t dims = 2, stages = 1;
  std::vector<int64_t> features;
  std::vector<Extent> kernels, strides;
  std::vector<int64_t> convs, decoder_convs;
};
UPlan plan_of(const std::string& who, const UOptions& options, int64_t default_convs,
              int64_t default_decoder_convs);

/// [B, C, ...] whose sizes the strides divide; the error says which multiple is needed.
void check_input(const char* who, const torch::Tensor& x, const UPlan& plan, int64_t channels);

/// Convolution, instance norm, leaky ReLU (if `active`). Keys conv.*, norm.*.
class ConvUnitImpl : public torch::nn::Module {
 public:
  ConvUnitImpl(int64_t in, int64_t out, const Extent& kernel, const Extent& stride, bool bias,
               bool active = true);
  torch::Tensor forward(const torch::Tensor& x);

 private:
  ConvNd conv_{nullptr};
  InstanceNorm norm_{nullptr};
  bool active_;
};
TORCH_MODULE(ConvUnit);

/// Two units and a shortcut: mean pooling where there is a stride, then a 1x1 unit where channels
/// change. Isensee et al., arXiv 2404.09556 (nnU-Net ResEnc). Keys conv1.*, conv2.*, skip.I.*.
class BasicBlockImpl : public torch::nn::Module {
 public:
  BasicBlockImpl(int64_t in, int64_t out, const Extent& kernel, const Extent& stride, bool bias);
  torch::Tensor forward(const torch::Tensor& x);

 private:
  ConvUnit conv1_{nullptr}, conv2_{nullptr}, projection_{nullptr};
  Extent pool_;  // empty: none
};
TORCH_MODULE(BasicBlock);

/// The names that checkpoints of nnU-Net and U-Mamba hold a second time: the decoder owns the
/// encoder too, and a unit lists its parts also as all_modules.
std::vector<std::pair<std::string, std::string>> unit_aliases();

}  // namespace serpentine
