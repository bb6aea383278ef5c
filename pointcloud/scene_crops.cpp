#include "pointcloud/scene_crops.h"

#include <array>
#include <cmath>

#include <torch/torch.h>

namespace serpentine {
namespace {

struct Grid {
  int64_t rows, columns;  // rows <= columns
};
constexpr std::array<Grid, 8> kGrids = {
    {{1, 2}, {2, 2}, {2, 3}, {3, 3}, {3, 4}, {4, 4}, {4, 5}, {5, 5}}};
constexpr double kBeyond = 0.1;  // the last piece reaches so far, in the unit of the points

// the grid with the nearest number of pieces, the first of two as near
Grid grid_for(double pieces) {
  Grid best = kGrids[0];
  const auto off = [&](Grid grid) {
    return std::abs(static_cast<double>(grid.rows * grid.columns) - pieces);
  };
  for (const Grid grid : kGrids) {
    if (off(grid) < off(best)) best = grid;
  }
  return best;
}

// for each point, whether it lies in piece `at` of `count` along one axis
torch::Tensor inside(const torch::Tensor& along, int64_t at, int64_t count) {
  const auto least = along.min(), step = (along.max() - least) / count;
  const auto begin = at * step + least, end = (at + 1) * step + least;
  return (along >= begin).logical_and(along < (at == count - 1 ? end + kBeyond : end));
}

torch::Tensor one_scene(const torch::Tensor& points, const torch::Tensor& features,
                        int64_t most_points, const OfPoints& of_points) {
  const auto x = points.select(1, 0), y = points.select(1, 1);
  const Grid grid =
      grid_for(static_cast<double>(points.size(0)) / static_cast<double>(most_points));
  const bool wide = (x.max() - x.min() > y.max() - y.min()).item<bool>();
  const int64_t along_x = wide ? grid.columns : grid.rows,
                along_y = wide ? grid.rows : grid.columns;
  torch::Tensor out;
  for (int64_t i = 0; i < along_x * along_y; ++i) {
    const auto index = inside(x, i / along_y, along_x)
                           .logical_and(inside(y, i % along_y, along_y))
                           .nonzero()
                           .squeeze(1);
    if (index.numel() == 0) continue;
    const auto some = points.index_select(0, index);
    const auto result =
        of_points((some - std::get<0>(some.min(0, /*keepdim=*/true))).unsqueeze(0),
                  features.defined() ? features.index_select(0, index).unsqueeze(0) : features)
            .squeeze(0);
    if (!out.defined()) {
      auto shape = result.sizes().vec();
      shape[0] = points.size(0);
      out = torch::zeros(shape, result.options());
    }
    out = out.index_copy(0, index, result);
  }
  return out;
}

}  // namespace

torch::Tensor by_crops(const torch::Tensor& points, const torch::Tensor& features,
                       int64_t most_points, const OfPoints& of_points) {
  std::vector<torch::Tensor> scenes;
  scenes.reserve(points.size(0));
  for (int64_t b = 0; b < points.size(0); ++b) {
    scenes.push_back(
        one_scene(points[b], features.defined() ? features[b] : features, most_points, of_points));
  }
  return torch::stack(scenes);
}

}  // namespace serpentine
