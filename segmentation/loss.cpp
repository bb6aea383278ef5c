#include "segmentation/loss.h"

#include <torch/torch.h>

#include "segmentation/distance.h"

namespace serpentine {
namespace {

using torch::Tensor;

std::vector<int64_t> spatial_axes(const Tensor& x, bool with_batch) {
  std::vector<int64_t> axes;
  if (with_batch) axes.push_back(0);
  for (int64_t axis = 2; axis < x.dim(); ++axis) axes.push_back(axis);
  return axes;
}

/// 1 - (tp + smooth/2) / (tp + a fp + b fn + smooth/2), mean over classes; a = b = 1/2 is Dice.
Tensor overlap_loss(const Tensor& chance, const Tensor& truth, double a, double b, bool batch,
                    double smooth) {
  const auto axes = spatial_axes(chance, batch);
  const auto tp = (chance * truth).sum(axes), all = chance.sum(axes), wanted = truth.sum(axes);
  const auto bottom = tp + a * (all - tp) + b * (wanted - tp) + smooth / 2;
  return 1 - ((tp + smooth / 2) / bottom.clamp_min(1e-8)).mean();
}

/// Signed distances to the border in voxels, negative inside; zero where a class is absent.
Tensor signed_distances(const Tensor& truth) {
  const auto host = truth.detach().to(torch::kCPU).ne(0);
  auto made = torch::zeros(truth.sizes(), torch::kFloat);
  for (int64_t b = 0; b < host.size(0); ++b) {
    for (int64_t k = 0; k < host.size(1); ++k) {
      auto mask = host[b][k];
      if (!mask.any().item<bool>() || mask.all().item<bool>()) continue;
      if (mask.dim() == 2) mask = mask.unsqueeze(0);
      const auto inside = distance_to(~mask, {1, 1, 1}), outside = distance_to(mask, {1, 1, 1});
      made[b][k].copy_((outside - inside).view(made[b][k].sizes()));
    }
  }
  return made.to(truth.device());
}

}  // namespace

void SegmentationLossOptions::fields(Fields& f) {
  f("dice", dice, "weight of the Dice loss", {.least = 0});
  f("ce", ce, "weight of cross entropy (of regions: binary)", {.least = 0});
  f("focal", focal, "weight of the focal loss", {.least = 0});
  f("tversky", tversky, "weight of the Tversky loss", {.least = 0});
  f("boundary", boundary, "weight of the boundary loss", {.least = 0});
  f("batch_dice", batch_dice, "overlaps over the batch instead of each example");
  f("smooth", smooth, "added to both sides of an overlap's fraction", {.least = 0});
  f("gamma", gamma, "focal: how much easy voxels lose their weight", {.least = 0});
  f("alpha", alpha, "Tversky: weight of false positives", {.least = 0});
  f("beta", beta, "Tversky: weight of false negatives", {.least = 0});
  f("class_weights", class_weights, "cross entropy: weight of each class; default 1", {.least = 0});
}

Tensor one_hot_target(const Tensor& target, int64_t classes, bool regions) {
  std::vector<int64_t> shape(static_cast<size_t>(target.dim()) + 1, 1);
  shape[1] = classes;
  const auto number = torch::arange(classes, target.options()).view(shape);
  const auto wide = target.unsqueeze(1);
  if (!regions) return wide.eq(number).to(torch::kFloat);
  const auto bit = torch::bitwise_left_shift(torch::ones_like(number), number);
  return (wide.clamp_min(0).bitwise_and(bit).ne(0)).to(torch::kFloat);
}

Tensor segmentation_loss(const Tensor& logits, const Tensor& target, bool regions,
                         const SegmentationLossOptions& options) {
  const int64_t classes = logits.size(1);
  // of the logits' type: binary cross entropy computes in that of its target
  const auto truth = one_hot_target(target, classes, regions).to(logits.scalar_type());
  const auto seen = target.ge(0).unsqueeze(1).to(logits.scalar_type());
  const auto chance = regions ? torch::sigmoid(logits) : torch::softmax(logits, 1);
  auto total = torch::zeros({}, logits.options());

  if (options.ce > 0 || options.focal > 0) {
    Tensor ce;  // of each voxel, zero where ignored
    if (regions) {
      ce = (torch::binary_cross_entropy_with_logits(logits, truth, {}, {}, at::Reduction::None) *
            seen)
               .mean(1);
    } else {
      const auto weight = options.class_weights.empty()
                              ? Tensor()
                              : torch::tensor(options.class_weights, logits.options());
      namespace F = torch::nn::functional;
      ce = F::cross_entropy(
          logits, target,
          F::CrossEntropyFuncOptions().weight(weight).ignore_index(-1).reduction(torch::kNone));
    }
    const auto count = seen.sum().clamp_min(1);
    if (options.ce > 0) total = total + options.ce * ce.sum() / count;
    if (options.focal > 0) {
      const auto easy = torch::exp(-ce);
      total = total + options.focal * ((1 - easy).pow(options.gamma) * ce).sum() / count;
    }
  }
  const bool overlaps = options.dice > 0 || options.tversky > 0 || options.boundary > 0;
  if (!overlaps) return total;
  const int64_t first = regions ? 0 : 1;
  const auto likely = (chance * seen).narrow(1, first, classes - first),
             wanted = (truth * seen).narrow(1, first, classes - first);
  if (options.dice > 0) {
    total = total + options.dice *
                        overlap_loss(likely, wanted, 0.5, 0.5, options.batch_dice, options.smooth);
  }
  if (options.tversky > 0) {
    total = total + options.tversky * overlap_loss(likely, wanted, options.alpha, options.beta,
                                                   options.batch_dice, options.smooth);
  }
  if (options.boundary > 0)
    total = total + options.boundary * (likely * signed_distances(wanted)).mean();
  return total;
}

}  // namespace serpentine
