#include "pointcloud/local_grouper.h"

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr double kLocalGrouperLeastDeviation = 1e-5;

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

GroupedPoints LocalGrouperImpl::forward(const torch::Tensor& points, const torch::Tensor& features,
                                        const torch::Tensor& residual) {
  const int64_t kept = points.size(1) / options_.reducer;
  GroupedPoints out{points, {}, residual};
  torch::Tensor centres = features;
  if (kept < points.size(1)) {
    const auto index = std::get<0>(farthest_points(points, kept).sort(1));
    out.points = take_rows(points, index);
    centres = take_rows(features, index);
    if (residual.defined()) out.residual = take_rows(residual, index);
  }
  const auto near =
      nearest_points(out.points.detach(), points.detach(), options_.neighbours, options_.distance)
          .index.slice(2, 0, std::nullopt, options_.stride);
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

torch::Tensor NeighbourhoodImpl::forward(torch::Tensor grouped) {
  if (transfer_) grouped = transfer_->forward(grouped);
  for (auto& layer : operation_) grouped = layer->forward(grouped);
  return std::get<0>(grouped.max(2));
}

}  // namespace serpentine
