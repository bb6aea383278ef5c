// Scores of tiles as pictures: a coarse grid, an overlay, a pyramid for viewers, GeoJSON.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <torch/types.h>
#include <nlohmann/json_fwd.hpp>

#include "pathology/slide.h"
#include "pathology/tiles.h"

namespace serpentine {

/// One value a cell of `side` level-0 pixels; where tiles overlap, their mean.
struct HeatGrid {
  torch::Tensor values;  // float32 [rows, columns] in [0, 1]
  torch::Tensor known;   // uint8 [rows, columns], 1 where a tile is
  double side = 0;
};

/// `scores`: [T] in [0, 1], one a tile of the grid.
HeatGrid heat_grid(const TileGrid& grid, const torch::Tensor& scores, int64_t slide_width,
                   int64_t slide_height);

/// Each score's share of smaller ones, in [0, 1]: attention is skewed, its ranks are not. Equal
/// scores share a rank. [T] to float32 [T].
torch::Tensor ranks(const torch::Tensor& scores);

struct HeatStyle {
  double opacity = 0.5;
  std::string map = "turbo";
  bool smooth = true;  // between cells
};

/// A part of the slide with the heat over it: uint8 [out_height, out_width, 3].
torch::Tensor heat_view(const Slide& slide, const HeatGrid& heat, double x, double y, double width,
                        double height, int64_t out_width, int64_t out_height,
                        const HeatStyle& style);

/// The heat alone, uint8 [out_height, out_width, 4]; no opacity where no tile is or the value is
/// below `threshold`.
torch::Tensor heat_layer(const HeatGrid& heat, double x, double y, double width, double height,
                         int64_t out_width, int64_t out_height, const HeatStyle& style,
                         double threshold);

/// An OME-BigTIFF with tiles of 512 pixels (JPEG) and levels in SubIFDs, its finest level reduced
/// by `downsample`. One tile is in memory at a time; the file appears when it is whole. Needs
/// libtiff. `progress`: tiles done, all tiles.
void write_heat_pyramid(const std::string& path, const Slide& slide, const HeatGrid& heat,
                        double downsample, const HeatStyle& style,
                        const std::function<void(int64_t, int64_t)>& progress = {});

/// The same file of any picture that can be asked for in parts: `view` gives [h, w, 3] for a part
/// of the finest level, given in its pixels, scaled to the size asked for.
using PartView = std::function<torch::Tensor(double x, double y, double width, double height,
                                             int64_t out_width, int64_t out_height)>;
void write_pyramid(const std::string& path, int64_t width, int64_t height, double mpp,
                   const std::string& name, const PartView& view,
                   const std::function<void(int64_t, int64_t)>& progress = {});

/// Tiles as QuPath objects with their scores as the measurement `name`; those at or above
/// `threshold` are classified as `label`.
nlohmann::json tiles_geojson(const TileGrid& grid, const torch::Tensor& scores, double threshold,
                             const std::string& name, const std::string& label);

}  // namespace serpentine
