// What a model of bags says of one slide, and everything a person wants to see of it.
//
//   prediction.json     label, probabilities, tiles; written last, so its presence says finished
//   overlay.png         the slide under the heat      top_tiles.png  tiles of the highest values
//   heatmap.ome.tif     the same as a pyramid         heat.png       values alone, for the viewer
//   tiles.geojson       tiles for QuPath              tiles.csv      corner, value, rank
//   report.html         all of it on one page
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <torch/types.h>

#include "pathology/heatmap.h"
#include "pathology/slide.h"
#include "pathology/tiles.h"
#include "pathology/tissue.h"

namespace serpentine {

/// What the heat shows of a tile: a word for files ("attention", "risk", "probability"), and a
/// phrase for people.
struct HeatMeaning {
  std::string word = "attention", phrase = "attention";
};

struct SlidePrediction {
  std::string name;   // of the slide
  std::string model;  // run and type, for people
  std::string encoder;
  std::vector<std::pair<std::string, double>> probabilities;  // by class; empty for survival
  int64_t label = 0;                                          // index of the largest
  bool calibrated = false;                                    // by a temperature of validation bags
  std::vector<double> temperatures;                           // one a model
  double risk = 0;                                            // of survival
  int64_t models = 1;                                         // whose probabilities were averaged
  TileGrid grid;
  torch::Tensor scores;  // [T], the more the hotter; undefined when the model gives none
  HeatMeaning meaning;   // of the scores
  int64_t tiles_unreadable = 0;
  double seconds = 0;  // up to here

  std::string sentence() const;
};

struct PredictionFiles {
  double heat_mpp = 2;     // micrometres of the pyramid's finest pixel; 0: no pyramid
  double threshold = 0.9;  // rank from which tiles are classified in QuPath
  int64_t top = 16;        // tiles on the sheet
  HeatStyle style;
  std::function<void(const std::string& what, int64_t done, int64_t all)> progress;
};

/// Writes all files into `folder`. The heat is the rank of the scores within the slide; without
/// scores there is none.
void write_slide_prediction(const std::string& folder, const Slide& slide, const Tissue& tissue,
                            const SlidePrediction& prediction, const PredictionFiles& options);

/// Indices of the `count` tiles of highest score that do not overlap one another.
std::vector<int64_t> top_tiles(const TileGrid& grid, const torch::Tensor& scores, int64_t count);

/// The page; pictures are PNG or JPEG bytes. Below the title kHeatTitle stand the colour scale and
/// its ends.
constexpr const char* kHeatTitle = "Heat over the slide";
struct ReportPicture {
  std::string title, bytes, type;
};
std::string prediction_page(const Slide& slide, const Tissue& tissue,
                            const SlidePrediction& prediction, const HeatStyle& style,
                            const std::vector<ReportPicture>& pictures);

}  // namespace serpentine
