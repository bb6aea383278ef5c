// Images as sequences of patches with class tokens among them.
#pragma once

#include <vector>

#include <torch/nn/modules/conv.h>

#include "core/config.h"
#include "vision/vim_stack.h"

namespace serpentine {

struct PatchOptions {
  int64_t patch_size = 16, stride = 16;
  void fields(Fields& f);
  /// Patches along a side of `pixels`; throws if there is none.
  int64_t tokens(int64_t pixels) const;
};

/// One convolution. Key proj.
class PatchSequenceImpl : public torch::nn::Module {
 public:
  PatchSequenceImpl(int64_t channels, int64_t dim, const PatchOptions& options);
  torch::Tensor forward(const torch::Tensor& images);  // [B, C, H, W] -> [B, M, dim]

 private:
  torch::nn::Conv2d proj_{nullptr};
};
TORCH_MODULE(PatchSequence);

/// [B, M, dim] with tokens [1, 1, dim] put at their places: [B, M + count, dim].
torch::Tensor with_class_tokens(const torch::Tensor& patches,
                                const std::vector<torch::Tensor>& tokens,
                                const ClassTokens& classes);

/// The patches of a sequence as a map: [B, T, dim] -> [B, dim, height, width].
torch::Tensor without_classes(const torch::Tensor& sequence, const ClassTokens& classes,
                              int64_t height, int64_t width);

}  // namespace serpentine
