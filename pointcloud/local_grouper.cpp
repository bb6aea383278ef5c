#include "pointcloud/local_grouper.h"

#include <algorithm>

#include <ATen/autocast_mode.h>
#include <torch/torch.h>

#include "core/check.h"
#include "pointcloud/neighbourhood_cpu.h"

namespace serpentine {
namespace {

constexpr double kLocalGrouperLeastDeviation = 1e-5;

/// The type of products on a CPU: bfloat16 under its autocast, else float32.
at::ScalarType product_type() {
  const bool narrow = at::autocast::is_autocast_enabled(at::kCPU) &&
                      at::autocast::get_autocast_dtype(at::kCPU) == at::kBFloat16;
  return narrow ? at::kBFloat16 : at::kFloat;
}

}  // namespace

LocalGrouperImpl::LocalGrouperImpl(int64_t channels, GrouperOptions options)
    : options_(std::move(options)), channels_(channels) {
  SERPENTINE_CHECK(
      options_.reducer >= 1 && options_.stride >= 1 && options_.neighbours % options_.stride == 0,
      "LocalGrouper", "the reducer must be at least 1 and the stride must divide the ",
      options_.neighbours, " neighbours, got ", options_.reducer, " and ", options_.stride);
  if (options_.normalize.empty()) return;
  const int64_t width = channels + (options_.use_xyz ? 3 : 0);
  affine_alpha_ = register_parameter("affine_alpha", torch::ones({1, 1, 1, width}));
  affine_beta_ = register_parameter("affine_beta", torch::zeros({1, 1, 1, width}));
}

int64_t LocalGrouperImpl::out_channels() const {
  return 2 * channels_ + (options_.use_xyz ? 3 : 0);
}

LocalGrouperImpl::Chosen LocalGrouperImpl::choose(const torch::Tensor& points,
                                                  const torch::Tensor& features,
                                                  const torch::Tensor& residual) const {
  const int64_t kept = points.size(1) / options_.reducer;
  Chosen chosen{{points, {}, residual}, features, {}};
  if (kept < points.size(1)) {
    const auto index = std::get<0>(farthest_points(points, kept).sort(1));
    chosen.kept.points = take_rows(points, index);
    chosen.centres = take_rows(features, index);
    if (residual.defined()) chosen.kept.residual = take_rows(residual, index);
  }
  chosen.near = nearest_points(chosen.kept.points.detach(), points.detach(), options_.neighbours,
                               options_.distance)
                    .index.slice(2, 0, std::nullopt, options_.stride);
  return chosen;
}

std::pair<torch::Tensor, torch::Tensor> LocalGrouperImpl::mapped(
    const Chosen& chosen, const torch::Tensor& points, const torch::Tensor& features,
    const torch::Tensor& weight) const {
  torch::Tensor rows = features, anchors = chosen.centres;
  if (options_.use_xyz) {
    rows = torch::cat({rows, points}, 2);
    anchors = torch::cat({anchors, chosen.kept.points}, 2);
  }
  const auto deviation =
      cpu::neighbour_deviation(rows.contiguous(), anchors.contiguous(), chosen.near.contiguous());
  const auto scale = affine_alpha_.view({1, 1, -1}) /
                     (deviation.view({-1, 1, 1}) + kLocalGrouperLeastDeviation);  // [B, 1, C]
  const auto of_rows = weight.narrow(1, 0, rows.size(2)),
             of_centres = weight.narrow(1, rows.size(2), channels_);
  const auto shift = torch::matmul(of_rows, affine_beta_.view({-1}));
  return {at::linear(rows * scale, of_rows),
          at::linear(chosen.centres, of_centres, shift) - at::linear(anchors * scale, of_rows)};
}

GroupedPoints LocalGrouperImpl::forward(const torch::Tensor& points, const torch::Tensor& features,
                                        const torch::Tensor& residual) {
  const Chosen chosen = choose(points, features, residual);
  const torch::Tensor &near = chosen.near, &centres = chosen.centres;
  GroupedPoints out = chosen.kept;
  torch::Tensor grouped = take_rows(features, near), anchor = centres;
  if (options_.use_xyz) {
    grouped = torch::cat({grouped, take_rows(points, near)}, -1);
    anchor = torch::cat({anchor, out.points}, -1);
  }
  if (!options_.normalize.empty()) {
    grouped = grouped - (options_.normalize == "center" ? grouped.mean(2, /*keepdim=*/true)
                                                        : anchor.unsqueeze(2));
    const auto deviation = grouped.flatten(1).std(1).view({-1, 1, 1, 1});
    grouped = affine_alpha_ * (grouped / (deviation + kLocalGrouperLeastDeviation)) + affine_beta_;
  }
  out.grouped = torch::cat({grouped, centres.unsqueeze(2).expand({-1, -1, near.size(2), -1})}, -1);
  return out;
}

NeighbourhoodImpl::NeighbourhoodImpl(int64_t in, int64_t out, int64_t blocks,
                                     const PointResidualOptions& options) {
  if (blocks == 0) {
    SERPENTINE_CHECK(in == out, "Neighbourhood", "without blocks the ", in,
                     " grouped channels go on as they are, but the stage has ", out);
    return;
  }
  transfer_ = register_module("transfer", PointLayer(in, out, options.bias, options.activation));
  torch::nn::ModuleList operation;
  for (int64_t i = 0; i < blocks; ++i) {
    operation_.emplace_back(out, options);
    operation->push_back(operation_.back());
  }
  register_module("operation", operation);
}

bool NeighbourhoodImpl::can_shorten(const LocalGrouperImpl& grouper,
                                    const torch::Tensor& features) const {
  return transfer_ && !is_training() && !at::GradMode::is_enabled() && features.is_cpu() &&
         (features.scalar_type() == torch::kFloat || features.scalar_type() == product_type()) &&
         grouper.is_anchored() && transfer_->is_relu() &&
         std::all_of(operation_.begin(), operation_.end(),
                     [](const PointResidual& layer) { return layer->is_two_relus(); });
}

GroupedPoints NeighbourhoodImpl::shortened(const LocalGrouperImpl& grouper,
                                           const torch::Tensor& points,
                                           const torch::Tensor& narrow_features,
                                           const torch::Tensor& residual) {
  const at::ScalarType products = product_type();
  // what is once a point stays float32: only the maps of all neighbours are worth less
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const auto features = narrow_features.to(torch::kFloat);
  const auto chosen = grouper.choose(points, features, residual);
  const auto first = transfer_->folded();
  const auto [from_points, from_centres] = grouper.mapped(chosen, points, features, first.weight);
  std::vector<std::pair<cpu::FoldedMap, cpu::FoldedMap>> layers;
  for (const auto& layer : operation_) layers.push_back(layer->folded());
  GroupedPoints out = chosen.kept;
  out.grouped = cpu::neighbourhood_features(from_points, from_centres + first.bias,
                                            chosen.near.contiguous(), layers, products);
  return out;
}

torch::Tensor NeighbourhoodImpl::forward(torch::Tensor grouped) {
  if (transfer_) grouped = transfer_->forward(grouped);
  for (auto& layer : operation_) grouped = layer->forward(grouped);
  return std::get<0>(grouped.max(2));
}

}  // namespace serpentine
