#include "pointcloud/segment_scene.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <torch/torch.h>

#include "core/check.h"
#include "pointcloud/cloud_source.h"
#include "pointcloud/sampling.h"

namespace serpentine {
namespace {

constexpr const char* kSegmentSceneWho = "segment";
constexpr int64_t kFewest = 1024;    // points that a model is given
constexpr double kMostBlocks = 1e6;  // along an axis

// [n, classes] of all rows: the model sees some, the others are between them
torch::Tensor scores_of(Model& model, const torch::Tensor& points, torch::Device device,
                        const SegmentOptions& options) {
  const auto local = (points - std::get<0>(points.min(0))).to(torch::kFloat);
  const int64_t count = points.size(0);

  // a sparse block's points are repeated, as models need some neighbours
  const auto chosen =
      choose_rows(count, std::min(options.points, std::max(count, kFewest)), options.seed);
  Batch batch;
  batch.input = local.index_select(0, chosen).unsqueeze(0).to(device);
  const auto scores = model.forward(batch).to(torch::kCPU, torch::kFloat);
  SERPENTINE_CHECK(scores.dim() == 3 && scores.size(1) == chosen.size(0), kSegmentSceneWho,
                   "the model must give [1, points, classes] for ", chosen.size(0), " points, got ",
                   scores.sizes(), "; it is not one that labels points");
  if (chosen.size(0) >= count) return scores[0].narrow(0, 0, count);
  return interpolate_features(local.unsqueeze(0), local.index_select(0, chosen).unsqueeze(0),
                              scores)[0];
}

// the second indices of the blocks that have points, in the column of blocks `x`
std::vector<int64_t> blocks_of(const torch::Tensor& cells, int64_t x) {
  const auto column = cells.select(1, 1).masked_select(cells.select(1, 0) == x);
  const auto found = std::get<0>(at::_unique(column, /*sorted=*/true)).contiguous();
  const auto* first = found.const_data_ptr<int64_t>();
  return {first, first + found.numel()};
}

}  // namespace

torch::Tensor segment_scene(Model& model, const torch::Tensor& points, torch::Device device,
                            const SegmentOptions& options) {
  check_shape(kSegmentSceneWho, points, "points", {-1, 3}, "N, 3");
  SERPENTINE_CHECK(options.block > 0 && options.margin >= 0 && options.points >= 1,
                   kSegmentSceneWho,
                   "a block's side must be above 0 and its margin not below, got ", options.block,
                   " and ", options.margin);
  const torch::NoGradGuard no_grad;
  const auto labels = torch::zeros({points.size(0)}, torch::kLong);
  if (points.size(0) == 0) return labels;
  SERPENTINE_CHECK(points.isfinite().all().item<bool>(), kSegmentSceneWho,
                   "coordinates must be finite");
  const auto place = points.narrow(1, 0, 2), least = std::get<0>(place.min(0));
  const auto cells = ((place - least) / options.block).floor();
  SERPENTINE_CHECK(cells.max().item<double>() < kMostBlocks, kSegmentSceneWho, "blocks of side ",
                   options.block, " are too small for this scene");

  // points sorted by column of blocks, so that a block looks at three columns only
  const auto cell = cells.to(torch::kLong);
  const int64_t across = cell.select(1, 0).max().item<int64_t>() + 1;
  const auto [column, order] = cell.select(1, 0).sort(std::optional<bool>(true), 0, false);
  const auto starts = torch::searchsorted(column, torch::arange(across + 1));
  const int64_t up = cell.select(1, 1).max().item<int64_t>() + 1;
  const auto reach = static_cast<int64_t>(std::ceil(options.margin / options.block));
  for (int64_t x = 0; x < across; ++x) {
    const int64_t from = starts[std::max<int64_t>(x - reach, 0)].item<int64_t>(),
                  to = starts[std::min(x + reach + 1, across)].item<int64_t>();
    const auto rows = order.slice(0, from, to);
    const auto near = place.index_select(0, rows) - least, own = cell.index_select(0, rows);
    const auto x_apart = near.select(1, 0) - static_cast<double>(x) * options.block;
    const auto in_x =
        (x_apart >= -options.margin).logical_and(x_apart <= options.block + options.margin);
    for (const int64_t y : blocks_of(own, x)) {
      const auto y_apart = near.select(1, 1) - static_cast<double>(y) * options.block;
      const auto seen = in_x.logical_and(y_apart >= -options.margin)
                            .logical_and(y_apart <= options.block + options.margin)
                            .nonzero()
                            .squeeze(1);
      const auto members = rows.index_select(0, seen);
      const auto classes =
          scores_of(model, points.index_select(0, members), device, options).argmax(1);
      const auto theirs = own.index_select(0, seen);
      const auto core = (theirs.select(1, 0) == x).logical_and(theirs.select(1, 1) == y);
      labels.index_copy_(0, members.masked_select(core), classes.masked_select(core));
      if (options.progress) options.progress(x * up + y + 1, across * up);
    }
  }
  return labels;
}

}  // namespace serpentine
