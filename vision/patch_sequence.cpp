#include "vision/patch_sequence.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {

void PatchOptions::fields(Fields& f) {
  f("patch_size", patch_size, "pixels of a patch's side", {.least = 1});
  f("stride", stride, "pixels from a patch to the next", {.least = 1});
}

int64_t PatchOptions::tokens(int64_t pixels) const {
  SERPENTINE_CHECK(pixels >= patch_size, "patches", "an image must have at least ", patch_size,
                   " pixels a side, got ", pixels);
  return (pixels - patch_size) / stride + 1;
}

PatchSequenceImpl::PatchSequenceImpl(int64_t channels, int64_t dim, const PatchOptions& options) {
  proj_ = register_module(
      "proj",
      torch::nn::Conv2d(
          torch::nn::Conv2dOptions(channels, dim, options.patch_size).stride(options.stride)));
  // LeCun: one over the inputs of an output
  const torch::NoGradGuard no_grad;
  const auto inputs = static_cast<double>(channels * options.patch_size * options.patch_size);
  proj_->weight.normal_(0, 1 / std::sqrt(inputs));
  proj_->bias.zero_();
}

torch::Tensor PatchSequenceImpl::forward(const torch::Tensor& images) {
  return proj_(images).flatten(2).transpose(1, 2).contiguous();
}

torch::Tensor with_class_tokens(const torch::Tensor& patches,
                                const std::vector<torch::Tensor>& tokens,
                                const ClassTokens& classes) {
  if (tokens.empty()) return patches;
  const auto places = classes.places(patches.size(1));
  std::vector<torch::Tensor> parts;
  int64_t done = 0;
  for (size_t c = 0; c < places.size(); ++c) {
    const int64_t next = places[c] - static_cast<int64_t>(c);  // patches before this token
    parts.push_back(patches.slice(1, done, next));
    parts.push_back(tokens[c].to(patches.scalar_type()).expand({patches.size(0), -1, -1}));
    done = next;
  }
  parts.push_back(patches.slice(1, done));
  return torch::cat(parts, 1);
}

torch::Tensor without_classes(const torch::Tensor& sequence, const ClassTokens& classes,
                              int64_t height, int64_t width) {
  std::vector<torch::Tensor> parts;
  int64_t done = 0;
  for (const int64_t place : classes.places(height * width)) {
    parts.push_back(sequence.slice(1, done, place));
    done = place + 1;
  }
  parts.push_back(sequence.slice(1, done));
  return torch::cat(parts, 1).transpose(1, 2).unflatten(2, {height, width});
}

}  // namespace serpentine
